"""Refuses a listen address that other machines can reach while no API key is required."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from reconciler.errors import ServiceManagerError


class UnsafeBind(ServiceManagerError):
    """The listen address is reachable from the network and no API key is required."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``; False for a name that can't be resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(ip_address(text.partition("%")[0]).is_loopback for text in addresses)


def check(host: str, *, keyless: bool, insecure: bool) -> None:
    """Reject an address beyond loopback if there is no API key (``keyless``), unless ``insecure`` allows it.

    Raises:
        UnsafeBind: the address is not loopback; the message lists the remedies.
    """
    if keyless and not insecure and not is_loopback(host):
        raise UnsafeBind(
            f"without an API key the daemon listens on loopback only, but {host} is not loopback.\n"
            "  → create a key: service-manager key add NAME --role operator (with the daemon's --state-dir)\n"
            "    or set SERVICE_MANAGER_API_KEY, or omit --host, or add --insecure to give everyone\n"
            "    in the network full control"
        )
