"""TCP ports: whether one can be bound, and which process listens on it. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"


def bind_error(host: str, port: int) -> int | None:
    """Try to listen on every address of ``host``; return the errno of the first failure, None without one."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
        except OSError as error:
            return error.errno or errno.EINVAL
    return None


def port_owner(port: int, proc: Path = Path("/proc")) -> str:
    """Return the process that listens on a port, as ``python3 (pid 4711)``.

    Empty if no process listens, or if it belongs to another user.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port, proc)}
    for link in proc.glob("[0-9]*/fd/*") if sockets else ():
        with contextlib.suppress(OSError):
            if os.readlink(link) in sockets:  # noqa: PTH115 - the target is a name, not a path
                process = link.parent.parent
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _listening(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
