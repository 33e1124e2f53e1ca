"""Takes apart the frames in which the engine mixes standard output and error of a container."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator

from reconciler.errors import EngineUnavailable

_FRAME = struct.Struct(">BxxxL")
_STREAMS = frozenset({0, 1, 2, 3})
"""Numbers that engines use: standard input, output and error, and the engine's own error."""
_LONGEST_FRAME = 2**24
"""Bytes; Docker's own are 16 kB. A frame that claims more would be gathered without bound."""
_LONGEST_LINE = 2**20


async def unframed(chunks: AsyncIterator[bytes], stamp: re.Pattern[bytes]) -> AsyncGenerator[bytes, None]:
    """Text of whole lines out of frames; ``stamp`` matches the time stamp before each piece of a line.

    A line of more than 1 MiB is cut. Time and memory grow with the bytes received, whatever they are.

    Raises:
        EngineUnavailable: a frame has a stream number or a length that no engine sends.
    """
    buffer = bytearray()
    partial: dict[int, bytearray] = {}
    async for chunk in chunks:
        buffer += chunk
        offset = 0
        while len(buffer) - offset >= _FRAME.size:
            stream, size = _FRAME.unpack_from(buffer, offset)
            if stream not in _STREAMS:
                message = f"the engine sends a frame of the unknown stream {stream}"
                raise EngineUnavailable(message, "engine_nonsense")
            if size > _LONGEST_FRAME:
                raise EngineUnavailable(f"the engine sends a frame of {size} bytes", "engine_nonsense")
            begin, end = offset + _FRAME.size, offset + _FRAME.size + size
            if len(buffer) < end:
                break
            offset = end
            # A line may come in several frames, with the other stream's lines in between.
            line = partial.setdefault(stream, bytearray())
            piece = bytes(buffer[begin:end])
            # A line longer than the engine's own pieces has a time stamp before each of them.
            line += stamp.sub(b"", piece, count=1) if line and stamp.match(piece) else piece
            # Only the new piece is searched: a line in a million frames must not cost a million searches.
            newline = piece.rfind(b"\n")
            if newline >= 0:
                whole = len(line) - (len(piece) - newline - 1)
                yield bytes(line[:whole])
                del line[:whole]
            if len(line) > _LONGEST_LINE:
                yield bytes(line) + b"\n"
                line.clear()
        del buffer[:offset]
    for line in partial.values():
        if line:
            yield bytes(line) + b"\n"
