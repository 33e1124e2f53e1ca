"""Clients that keep 1,200 half-sent requests open, and clients that try to use up memory (issue 13, 9)."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rest.conftest import Start
from tests.rest.test_subscribers import resident
from tests.support.fixtures.http_client import ask
from tests.support.harness.daemon import PROGRAM, Daemon, free_port

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
FEW_DESCRIPTORS = ("sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh", *PROGRAM)
"""The default limit of systemd and of shells."""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def half_open(port: int, count: int) -> Iterator[list[socket.socket]]:
    connections = []
    try:
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", port), timeout=30)
            connections.append(one)
            with contextlib.suppress(OSError):
                one.sendall(HALF)
        yield connections
    finally:
        for one in connections:
            one.close()


def switch(daemon: Daemon, *, on: bool) -> None:
    """Edit the file and wait until the daemon has converged to it."""
    before = ask(daemon, "GET", "/services/status").value["generation"]
    file = daemon.desired / "groups.yaml"
    old, new = ("monitoring: off", "monitoring: on") if on else ("monitoring: on", "monitoring: off")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    deadline = time.monotonic() + 60
    while (status := ask(daemon, "GET", "/services/status").value)["generation"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ended = ask(daemon, "GET", f"/services/progress/{status['generation']}?wait=60", timeout=70.0)
    assert ended.value["state"] == "converged"


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("many_descriptors")
def test_half_sent_requests_delay_neither_edits_nor_commands(a_daemon: Start) -> None:
    scraped = free_port()
    daemon = a_daemon(program=FEW_DESCRIPTORS, metrics_listen=f"127.0.0.1:{scraped}")
    daemon.converged(1)
    before, lines = resident(daemon), daemon.log().count("refusing HTTP connections")
    assert lines == 0
    for port in (int(daemon.url.rpartition(":")[2]), scraped):
        with half_open(port, 1200):
            switch(daemon, on=True)
            status = daemon.cli("status")
            assert status.returncode == 0, status.stderr
            assert len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())) < 400
            switch(daemon, on=False)
    assert resident(daemon) - before < 20 * 2**20
    assert daemon.log().count("refusing HTTP connections") == 1
    assert "Traceback" not in daemon.log()


@pytest.mark.timeout(120)
def test_endless_headers_use_no_memory(a_daemon: Start) -> None:
    scraped = free_port()
    daemon = a_daemon(metrics_listen=f"127.0.0.1:{scraped}")
    daemon.converged(1)
    before = resident(daemon)
    for port in (int(daemon.url.rpartition(":")[2]), scraped):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(HALF)
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                for _ in range(400):
                    client.sendall(b"a:\r\n" * 65536)
    assert resident(daemon) - before < 20 * 2**20
    assert ask(daemon, "GET", "/healthz").status == 200
