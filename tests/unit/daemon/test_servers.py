"""Listening sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from reconciler.daemon.servers import PortTaken, listen, local_host_names, serve, server
from reconciler.options import Address

ABSENT = "192.0.2.7"
"""No machine has this address: it is reserved for documentation."""


def test_a_taken_port_says_which_option_chooses_another() -> None:
    with listen(Address("127.0.0.1", 0)) as first:
        first.listen()
        address = Address("127.0.0.1", first.getsockname()[1])
        with pytest.raises(PortTaken, match=r"can't listen on 127\.0\.0\.1:\d+: .* with --metrics-listen"):
            listen(address, "--metrics-listen", ahead=True)


def test_an_address_that_comes_later_can_be_listened_on_ahead() -> None:
    with pytest.raises(PortTaken, match="requested address"):
        listen(Address(ABSENT, 0))
    with listen(Address(ABSENT, 0), "--metrics-listen", ahead=True) as listener:
        assert listener.getsockname()[0] == ABSENT
    with listen(Address("2001:db8::7", 0), "--metrics-listen", ahead=True) as listener:
        assert listener.family == socket.AF_INET6


def test_a_machine_has_its_name_with_and_without_the_domain() -> None:
    assert local_host_names("Box.example.org") == ("box.example.org", "box", "box.local")
    assert local_host_names("box") == ("box", "box.local")


async def test_all_servers_end_with_the_first() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("not called")

    listeners = [listen(Address("127.0.0.1", 0)) for _ in range(2)]
    servers = [(server(app, 1.0, lifespan=False), listener) for listener in listeners]
    task = asyncio.create_task(serve(servers))
    async with asyncio.timeout(10):
        while not all(one.started for one, _ in servers):
            await asyncio.sleep(0.01)
        servers[0][0].should_exit = True
        await task
    assert all(one.should_exit for one, _ in servers)
