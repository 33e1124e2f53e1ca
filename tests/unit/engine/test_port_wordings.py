"""What engines write when a port is taken: recorded messages, one per wording."""

from __future__ import annotations

import pytest

from reconciler.engine.error_reasons import reason_of, wanted_port

ENDPOINT = "driver failed programming external connectivity on endpoint web (4c1d5e8a0b7f)"
WORDINGS = {
    "docker 20.10, a container": f"{ENDPOINT}: Bind for 0.0.0.0:8080 failed: port is already allocated",
    "docker 20.10, a program": f"{ENDPOINT}: Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: "
    "address already in use",
    "docker 26.1, IPv6": f"{ENDPOINT}: Error starting userland proxy: listen tcp6 [::]:8080: bind: "
    "address already in use",
    "docker 28.5, a container": f"failed to set up container networking: {ENDPOINT}: Bind for 0.0.0.0:8080 "
    "failed: port is already allocated",
    "docker 28.5, a program": f"failed to set up container networking: {ENDPOINT}: failed to bind host port "
    "for 0.0.0.0:8080:172.18.0.2:80/tcp: address already in use",
    "docker 28.5, IPv6": f"failed to set up container networking: {ENDPOINT}: failed to bind host port for "
    "[::]:8080:[fd00::2]:80/tcp: address already in use",
    "docker 29.7": f"failed to set up container networking: {ENDPOINT}: failed to bind host port "
    "0.0.0.0:8080/tcp: address already in use",
    "docker 29.7, IPv6": f"failed to set up container networking: {ENDPOINT}: failed to bind host port "
    "[::]:8080/tcp: address already in use",
    "podman 5.4": "cannot listen on the TCP port: listen tcp4 :8080: bind: address already in use",
}


@pytest.mark.parametrize("text", WORDINGS.values(), ids=WORDINGS)
def test_every_wording_names_the_port(text: str) -> None:
    assert (reason_of(text), wanted_port(text)) == ("port_conflict", 8080)


def test_other_messages_name_no_port() -> None:
    assert wanted_port("failed to bind host port: permission denied") == 0
