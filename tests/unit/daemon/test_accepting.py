"""Accepting connections while descriptors are short."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from typing import Any

import pytest

from reconciler.daemon.accept import Acceptor
from reconciler.daemon.servers import raise_descriptor_limit
from tests.support.fixtures.virtual_time import run_virtually


class Listener:
    """A listening socket of a process that has no descriptor left until it is ``repaired``."""

    def __init__(self, code: int) -> None:
        self.pair = socket.socketpair()
        self.code = code
        self.attempts = 0
        self.repaired = False

    def fileno(self) -> int:
        return self.pair[0].fileno()

    def setblocking(self, _: bool) -> None: ...

    def listen(self, _: int) -> None:
        # Always readable, like a queue of connections that are never accepted.
        self.pair[1].send(b"x")

    def accept(self) -> tuple[Any, Any]:
        self.attempts += 1
        if self.repaired:
            self.pair[0].recv(1)
            raise BlockingIOError
        raise OSError(self.code, "Too many open files")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_accepting_is_retried_once_a_second(code: int, caplog: pytest.LogCaptureFixture) -> None:
    noted: list[str] = []

    async def scenario() -> None:
        listener = Listener(code)
        acceptor = Acceptor(listener, asyncio.Protocol, noted.append)  # type: ignore[arg-type]
        acceptor.start()
        await asyncio.sleep(10.5)
        assert listener.attempts == 11
        listener.repaired = True
        await asyncio.sleep(1)
        acceptor.close()
        await acceptor.wait_closed()
        for one in listener.pair:
            one.close()

    with caplog.at_level(logging.DEBUG):
        run_virtually(scenario())
    assert noted == ["no connection can be accepted for a second: Too many open files"] * 11
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno > 20]


def test_connections_are_accepted_in_batches() -> None:
    async def scenario() -> None:
        made: list[asyncio.Protocol] = []

        def protocol() -> asyncio.Protocol:
            made.append(asyncio.Protocol())
            return made[-1]

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        acceptor = Acceptor(listener, protocol, lambda _: None)
        acceptor.start()
        clients = [socket.create_connection(listener.getsockname()) for _ in range(100)]
        async with asyncio.timeout(20):
            while len(made) < 64:
                await asyncio.sleep(0)
            assert len(made) <= 64
            while len(made) < 100:
                await asyncio.sleep(0)
        for client in clients:
            client.close()
        acceptor.close()
        await acceptor.wait_closed()
        listener.close()
        await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_the_soft_limit_becomes_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        most = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
        assert most == (65536 if hard == resource.RLIM_INFINITY else min(hard, 65536))
        assert raise_descriptor_limit() == most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
