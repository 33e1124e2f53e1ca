"""The chain's last link, stored outside the database so that a truncated audit log is detected.

One small file has two slots with checksums, written in turn: when a power cut tears one write, the other slot
is still valid. The head is written after the database, so a head that lags behind is harmless; a head that is
ahead means missing entries. The file is also the lock between processes that append.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.audit.chain import ChainLink
from reconciler.host.atomic_files import open_private, sync_directory

NAME = "audit.head"
_SLOT = 512
"""Bytes of a slot: one disk sector. A disk writes a sector whole or not at all, so no write tears both."""


class ChainHead:
    """The head file of a state directory; created when missing.

    Raises:
        OSError: the file can't be opened or created.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / NAME
        self._descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        if not os.fstat(self._descriptor).st_size:
            # Allocate both slots now: later writes then need no space on a full disk.
            os.pwrite(self._descriptor, b" " * (2 * _SLOT), 0)
            os.fsync(self._descriptor)
            sync_directory(state_dir)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, so that no other process appends."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> ChainLink | None:
        """Return the newest link written; None when neither slot is valid."""
        return max(filter(None, self._slots()), default=None)

    def write(self, link: ChainLink) -> None:
        """Write a new link; it survives a power cut only after ``sync``."""
        slots = [slot or ChainLink(-1, b"") for slot in self._slots()]
        text = f"{link.id:020d} {link.hash.hex()}".encode()
        line = b"%s %08x" % (text, zlib.crc32(text))
        os.pwrite(self._descriptor, line.ljust(_SLOT - 1) + b"\n", slots.index(min(slots)) * _SLOT)

    def sync(self) -> None:
        """Flush the head to disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file, which also releases the lock."""
        os.close(self._descriptor)

    def _slots(self) -> list[ChainLink | None]:
        content = os.pread(self._descriptor, 2 * _SLOT, 0)
        return parse(content)


def parse(content: bytes) -> list[ChainLink | None]:
    """Return both slots of a head file; None for an empty or torn slot."""
    return [_slot(content[:_SLOT]), _slot(content[_SLOT : 2 * _SLOT])]


def read_head(state_dir: Path) -> ChainLink | None:
    """Read the head without creating or locking the file; None when it is missing or invalid.

    Raises:
        OSError: the file exists and can't be read.
    """
    try:
        content = (state_dir / NAME).read_bytes()
    except FileNotFoundError:
        return None
    return max(filter(None, parse(content)), default=None)


def _slot(content: bytes) -> ChainLink | None:
    try:
        number, digest, checksum = content.split()
        if int(checksum, 16) == zlib.crc32(b"%s %s" % (number, digest)):
            return ChainLink(int(number), bytes.fromhex(digest.decode("ascii")))
    except ValueError:
        pass
    return None
