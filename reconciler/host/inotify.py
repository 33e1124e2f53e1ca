"""Linux inotify as a file descriptor for an event loop.

Calls libc through ctypes: the packages poll a hundred times a second (watchfiles: 0.4 % of a core while idle)
and hide the queue overflow event.
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
"""Without MODIFY: a file is read after its writer closes it, and open log files cause no events."""

_ONLYDIR = 0x01000000
_EVENT = struct.Struct("iIII")
_BUFFER = 65536


class Event(NamedTuple):
    """One event: the watch, the event mask, and the name in the watched directory ('': the directory)."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One event queue. ``fd`` is readable when events are pending.

    Raises:
        OSError: the system has no inotify, or ``fs.inotify.max_user_instances`` is reached.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, directory: Path) -> int:
        """Watch a directory; return its watch number, which is the same for the same inode.

        Raises:
            OSError: the path is not a directory, or the limit of watches is reached (ENOSPC).
        """
        name = os.fsencode(directory)
        return self._checked(self._libc.inotify_add_watch(self.fd, name, ctypes.c_uint32(CHANGES | _ONLYDIR)))

    def forget(self, watch: int) -> None:
        """Remove a watch; ignores one that the kernel removed."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """Yield the pending events; never waits."""
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
        """Remove all watches."""
        os.close(self.fd)

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
