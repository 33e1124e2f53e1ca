"""Who could reach the daemon, and whether a key stands before it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from reconciler.errors import ServiceManagerError


class UnsafeBind(ServiceManagerError):
    """The daemon would answer to anybody in the network; it does not start like that."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there; a name that means nothing counts as no."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(ip_address(text.partition("%")[0]).is_loopback for text in found)


def check(host: str, *, keyless: bool, insecure: bool) -> None:
    """Refuse to listen beyond loopback without any key.

    Raises:
        Exposed: with what to do instead.
    """
    if keyless and not insecure and not is_loopback(host):
        raise UnsafeBind(
            f"without an API key only this machine may reach the daemon, but {host} is not loopback.\n"
            "  → make a key: service-manager key add NAME --role operator (with the daemon's --state-dir)\n"
            "    or set SERVICE_MANAGER_API_KEY, or leave --host away, or, where everybody in the network\n"
            "    may switch everything off, add --insecure"
        )
