"""The journal's own protocol: a record arrives with its level and its fields, not as a line to be parsed.

Used by ``logs`` where systemd connected our standard error to the journal. One datagram per record, so
nothing of ours ever waits for the disk; a record too large for a datagram goes as a sealed memory file.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "service-manager"
PREFIX = "SERVICE_MANAGER_"
"""Before the name of a field of ours: ``service`` becomes ``SERVICE_MANAGER_SERVICE``."""

_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_LONGEST_NAME = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_ours(stream: str, descriptor: int) -> bool:
    """Whether a descriptor is the stream to the journal that ``$JOURNAL_STREAM`` names.

    The variable alone says little: it is inherited also by what has its output redirected elsewhere.
    """
    device, _, inode = stream.partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def field_name(key: str) -> str:
    """The journal's name for a field of ours; it allows capitals, digits and underscores alone."""
    return (PREFIX + re.sub(r"[^A-Z0-9]", "_", key.upper()))[:_LONGEST_NAME]


def encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields as the journal reads them. A value of several lines is told with its length."""
    parts = []
    for name, value in fields:
        content = value.encode(errors="replace")
        if b"\n" in content:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(content)), content))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), content))
    return b"".join(parts)


class Journal:
    """Sends records to the journal's socket.

    Raises:
        OSError: at the making, where there is no such socket.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(self._path)
        except OSError:
            self._socket.close()
            raise

    def send(self, message: str, priority: int, fields: Mapping[str, str]) -> bool:
        """One record; False where the journal did not take it. ``priority`` is syslog's, 0 to 7."""
        known = (
            ("MESSAGE", message),
            ("PRIORITY", str(priority)),
            ("SYSLOG_IDENTIFIER", IDENTIFIER),
            *fields.items(),
        )
        content = encode_fields(known)
        try:
            self._send(content)
        except OSError as error:
            if error.errno in _TOO_LARGE:
                return self._hand_over(content)
            # The journal was restarted: the socket that we knew is gone, another has its name.
            with contextlib.suppress(OSError):
                self._socket.connect(self._path)
                self._send(content)
                return True
            return False
        return True

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _send(self, content: bytes) -> None:
        self._socket.send(content, socket.MSG_NOSIGNAL)

    def _hand_over(self, content: bytes) -> bool:
        with contextlib.suppress(OSError):
            descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(content)
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
                self._socket.sendmsg([], [rights])
            finally:
                os.close(descriptor)
            return True
        return False
