"""Where the chain of the audit log ends, kept apart from the database: a cut tail shows.

Two slots in one small file, written in turn and each with a checksum: whatever write is torn by a power
cut, the other slot still holds. Written after the database, so a head that lags behind is no sign of harm;
one that is ahead is. The file is also the lock that appenders of several processes take turns by.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.audit.chain import ChainLink
from reconciler.host.atomic_files import chown_like, sync_directory

NAME = "audit.head"
_SLOT = 512
"""Bytes; a sector is written whole or not at all, so that no write can tear both slots."""


class ChainHead:
    """The head file of a state directory, made when it is not there.

    Raises:
        OSError: it can't be opened, or made.
    """

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / NAME
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not os.fstat(self._descriptor).st_size:
            chown_like(self._descriptor, state_dir)
            # All of it at once: later writes need no room on a disk that may be full by then.
            os.pwrite(self._descriptor, b" " * (2 * _SLOT), 0)
            os.fsync(self._descriptor)
            sync_directory(state_dir)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the chain's end: nobody else appends meanwhile."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def read(self) -> ChainLink | None:
        """Where the chain ended when it was last written; None where nobody knows."""
        return max(filter(None, self._slots()), default=None)

    def write(self, link: ChainLink) -> None:
        """Note a new end; lasts through a power cut after ``sync`` only."""
        slots = [found or ChainLink(-1, b"") for found in self._slots()]
        text = f"{link.id:020d} {link.hash.hex()}".encode()
        line = b"%s %08x" % (text, zlib.crc32(text))
        os.pwrite(self._descriptor, line.ljust(_SLOT - 1) + b"\n", slots.index(min(slots)) * _SLOT)

    def sync(self) -> None:
        """Have the head last."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _slots(self) -> list[ChainLink | None]:
        content = os.pread(self._descriptor, 2 * _SLOT, 0)
        return parse(content)


def parse(content: bytes) -> list[ChainLink | None]:
    """Both slots of a head file; None for one that is empty or torn."""
    return [_slot(content[:_SLOT]), _slot(content[_SLOT : 2 * _SLOT])]


def read_head(state_dir: Path) -> ChainLink | None:
    """The head without making or locking anything; None where there is none that can be read.

    Raises:
        OSError: there is a file, and it can't be read.
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
