"""Parses the frames in which the engine multiplexes standard output and error of a container."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple

from reconciler.errors import EngineUnavailable

_HEAD = struct.Struct(">BxxxL")
_STREAMS = frozenset({0, 1, 2, 3})
"""Numbers that engines use: standard input, output and error, and the engine's own error."""
_LONGEST_FRAME = 2**24
"""Bytes; Docker's own are 16 kB. A longer frame would be buffered without a limit."""
_LONGEST_LINE = 2**20


class Part(NamedTuple):
    """A part of the content of one frame. ``is_last``: it completes the frame."""

    stream: int
    content: bytes
    is_last: bool


class FrameParser:
    """Splits a byte stream into the contents of its frames; buffers no more than the head of a frame."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, chunk: bytes) -> Iterator[Part]:
        """Yield the parts in a chunk of the stream, which may be cut anywhere.

        Raises:
            EngineUnavailable: a frame has a stream number or a length that no engine sends. The parser can't
                be used any more.
        """
        offset = 0
        while offset < len(chunk):
            if self._left:
                content = chunk[offset : offset + self._left]
                offset += len(content)
                self._left -= len(content)
                yield Part(self._stream, content, not self._left)
                continue
            missing = _HEAD.size - len(self._head)
            self._head += chunk[offset : offset + missing]
            offset += missing
            if len(self._head) < _HEAD.size:
                return
            self._stream, self._left = _HEAD.unpack(self._head)
            self._head.clear()
            if self._stream not in _STREAMS:
                message = f"the engine sends a frame of the unknown stream {self._stream}"
                raise EngineUnavailable(message, "engine_nonsense")
            if self._left > _LONGEST_FRAME:
                raise EngineUnavailable(f"the engine sends a frame of {self._left} bytes", "engine_nonsense")


async def unframed(chunks: AsyncIterator[bytes], stamp: re.Pattern[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield text of whole lines from frames; ``stamp`` matches the time stamp at the start of each piece.

    A line of more than 1 MiB is cut. Time and memory are linear in the number of bytes received.

    Raises:
        EngineUnavailable: a frame has a stream number or a length that no engine sends.
    """
    parser = FrameParser()
    frames: dict[int, bytearray] = {}
    partial: dict[int, bytearray] = {}
    async for chunk in chunks:
        for part in parser.feed(chunk):
            frame = frames.setdefault(part.stream, bytearray())
            frame += part.content
            if not part.is_last:
                continue
            piece = bytes(frame)
            frame.clear()
            # A line may come in several frames, with the other stream's lines in between.
            line = partial.setdefault(part.stream, bytearray())
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
    for line in partial.values():
        if line:
            yield bytes(line) + b"\n"
