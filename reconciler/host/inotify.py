"""Linux's own notice of changed files, as a descriptor that an event loop can wait on.

Through ctypes, because what the packages offer asks for news a hundred times a second (watchfiles: 0.4 % of
a core, all day) and hides the one message that matters most: that messages were lost.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
OVERFLOW = 0x4000
IGNORED = 0x8000

CHANGES = ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
"""Not MODIFY: a file is worth reading when its writer has closed it, and a log folder stays quiet."""

_ONLYDIR = 0x01000000
_EVENT = struct.Struct("iIII")
_BUFFER = 65536


class Event(NamedTuple):
    """One message: which watch, what happened, and the name inside the watched directory ('': itself)."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of messages. ``fd`` becomes readable when there are any.

    Raises:
        OSError: the system has none, or no more of it (``fs.inotify.max_user_instances``).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, directory: Path) -> int:
        """Begins to watch a directory; the number of its watch, the same as long as it is the same inode.

        Raises:
            OSError: it is no directory, or the system's limit is reached (ENOSPC).
        """
        name = os.fsencode(directory)
        return self._checked(self._libc.inotify_add_watch(self.fd, name, ctypes.c_uint32(CHANGES | _ONLYDIR)))

    def forget(self, watch: int) -> None:
        """Ends a watch; one that ended by itself is none."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """The messages that have come so far; never waits."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            yield Event(watch, mask, os.fsdecode(name))

    def close(self) -> None:
        """Ends all watches."""
        os.close(self.fd)

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
