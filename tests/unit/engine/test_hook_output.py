"""The output of a hook is kept in bounded memory."""

from __future__ import annotations

import struct

from reconciler.engine.docker.start.exec import Tail


def _frame(stream: int, text: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(text)) + text


def test_output_is_the_same_wherever_the_stream_is_cut() -> None:
    stream = _frame(1, b"first\n") + _frame(2, b"failed\n") + _frame(2, b"") + _frame(2, b"again\n")
    for size in range(1, len(stream) + 1):
        tail = Tail()
        for start in range(0, len(stream), size):
            tail.feed(stream[start : start + size])
        assert tail.text() == "failed\nagain"


def test_an_invalid_frame_ends_the_output() -> None:
    tail = Tail()
    tail.feed(_frame(2, b"failed\n") + struct.pack(">BxxxL", 2, 2**32 - 1))
    for _ in range(100):
        tail.feed((b"x" * 99 + b"\n") * 600)
    assert sum(len(kept) for kept in tail._kept.values()) < 2**20
    assert tail.text() == "failed\nthe rest of the output can't be read"
