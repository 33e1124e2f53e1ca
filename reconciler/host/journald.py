"""The native protocol of systemd-journald: sends each record with its level and fields.

``logging_setup`` uses it if systemd connected standard error to the journal. Each record is one datagram, so
logging never waits for the disk; a record too large for a datagram is sent as a sealed memory file.
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
"""Prefix of custom field names: ``service`` becomes ``SERVICE_MANAGER_SERVICE``."""

_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_LONGEST_NAME = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_journal_stream(stream: str, descriptor: int) -> bool:
    """Return whether a descriptor is the journal stream that ``$JOURNAL_STREAM`` names.

    The variable alone is no proof: child processes with redirected output inherit it as well.
    """
    device, _, inode = stream.partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def field_name(key: str) -> str:
    """Return the journal's name for a custom field; only capitals, digits and underscores are valid."""
    return (PREFIX + re.sub(r"[^A-Z0-9]", "_", key.upper()))[:_LONGEST_NAME]


def encode_fields(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode fields in the journal's format. A value with several lines is preceded by its length."""
    parts = []
    for name, value in fields:
        content = value.encode(errors="replace")
        if b"\n" in content:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(content)), content))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), content))
    return b"".join(parts)


class Journal:
    """Send records to the journal's socket.

    Raises:
        OSError: the constructor can't connect to the socket.
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
        """Send one record with a syslog ``priority`` from 0 to 7; return False if the journal rejects it."""
        all_fields = (
            ("MESSAGE", message),
            ("PRIORITY", str(priority)),
            ("SYSLOG_IDENTIFIER", IDENTIFIER),
            *fields.items(),
        )
        content = encode_fields(all_fields)
        try:
            self._send(content)
        except OSError as error:
            if error.errno in _TOO_LARGE:
                return self._send_as_file(content)
            # A restart of the journal replaces the socket: reconnect once.
            with contextlib.suppress(OSError):
                self._socket.connect(self._path)
                self._send(content)
                return True
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, content: bytes) -> None:
        self._socket.send(content, socket.MSG_NOSIGNAL)

    def _send_as_file(self, content: bytes) -> bool:
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
