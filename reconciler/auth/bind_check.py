"""Refuses to serve other machines while no API key is required, or only a key that can be guessed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from reconciler.errors import ServiceManagerError

log = logging.getLogger(__name__)

SHORTEST_KEY = 16
"""Characters of a key that the environment sets; generated keys have 55."""


class UnsafeBind(ServiceManagerError):
    """The daemon is reachable from the network, and no API key, or only a short one, protects it."""


def serves_others(host: str, allowed_hosts: Sequence[str]) -> bool:
    """Return whether other machines may reach the daemon: by its address, or through a proxy.

    ``--allowed-host`` names the hosts that a proxy in front of the daemon serves.
    """
    return bool(allowed_hosts) or not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``; False for a name that can't be resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(ip_address(text.partition("%")[0]).is_loopback for text in addresses)


def check(
    host: str, allowed_hosts: Sequence[str] = (), *, keyless: bool, insecure: bool, key: str = ""
) -> None:
    """Reject an address beyond loopback, or a host of a proxy, without an API key or with a short one.

    ``key`` is the one that the environment sets, if any. A short one on loopback is only warned of, so that
    an upgrade starts. So is a host of a proxy without a key: on loopback the daemon starts, and every request
    needs a key until one exists.

    Raises:
        UnsafeBind: other machines could connect without a key, or guess it; the message lists the remedies.
    """
    short = bool(key) and len(key) < SHORTEST_KEY
    if insecure or not serves_others(host, allowed_hosts):
        if short:
            log.warning("the API key is short and can be guessed", extra={"at_least": SHORTEST_KEY})
        return
    named = (
        f"--allowed-host {allowed_hosts[0]} is for a proxy" if allowed_hosts else f"{host} is not loopback"
    )
    if keyless and is_loopback(host):
        log.warning(
            "no API key exists, so every request is refused: --allowed-host is for a proxy; create a key "
            "with `service-manager key add NAME --role operator`, or add --insecure",
            extra={"allowed_host": allowed_hosts[0]},
        )
        return
    if keyless:
        raise UnsafeBind(
            f"without an API key the daemon serves this machine only, but {named}.\n"
            "  → create a key: service-manager key add NAME --role operator (with the daemon's --state-dir)\n"
            "    or set SERVICE_MANAGER_API_KEY, or omit --host and --allowed-host, or add\n"
            "    --insecure to give everyone in the network full control"
        )
    if short:
        raise UnsafeBind(
            f"the key in SERVICE_MANAGER_API_KEY is shorter than {SHORTEST_KEY} characters, and {named}.\n"
            "  → create a key: service-manager key add NAME --role operator (with the daemon's --state-dir)\n"
            f"    and remove the variable, or set a key of at least {SHORTEST_KEY} characters"
        )
