"""Raw bytes at the port: any header gets a response or a closed connection, and does no harm."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rest.conftest import Start
from tests.support.fixtures.http_client import ask, await_open
from tests.support.harness.daemon import Daemon

ROUNDS = 400
NAMES = [
    *(b"Host", b"Origin", b"X-API-Key", b"Authorization", b"Cookie", b"Content-Length", b"Content-Type"),
    *(b"If-Match", b"If-None-Match", b"Last-Event-ID", b"Accept", b"X-Forwarded-For", b"X-Forwarded-Proto"),
    *(b"Transfer-Encoding", b"Connection", b"Expect", b"Range", b"Upgrade", b"Sec-Fetch-Site", b"Te"),
]
PATHS = [
    *(b"/services/status", b"/services/status/kafka", b"/services/plan", b"/services/audit", b"/metrics"),
    *(b"/services/groups/kafka", b"/services/session", b"/healthz", b"/openapi.json", b"/services/%00"),
    *(b"//services/status", b"/services/../services/status", b"*", b"/services/dashboard/..%2f..%2fsecret"),
]
METHODS = [
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"G\xc3\x84T",
    b"CONNECT",
]
VALUES = [
    *(b"", b"null", b"\xff\xfe\x00", b"a" * 5000, b"\xc3\xa9\xf0\x9f\x98\x80", b"-1", b"1e9", b"chunked"),
    *(
        b"localhost",
        b"localhost:99999",
        b"[::1",
        b"::1]",
        b"[fe80::1%25eth0]",
        b"http://",
        b"http://[",
        b'W/""',
    ),
    *(b"Bearer", b"Bearer ", b"bearer a b", b"Basic YTpi", b'"a", W/"b", *', b"0-0", b"ffffffff-1", b"'; --"),
    *(
        b"close",
        b"upgrade",
        b"100-continue",
        b"bytes=0-",
        b"1, 2",
        b"%s%n",
        b"application/json; charset=utf-7",
    ),
]


def requests(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        lines = [b"%s %s HTTP/1.1" % (chance.choice(METHODS), chance.choice(PATHS))]
        if chance.random() < 0.8:
            lines.append(b"Host: localhost")
        for _ in range(chance.randrange(6)):
            value = chance.choice(VALUES) if chance.random() < 0.8 else chance.randbytes(chance.randrange(40))
            lines.append(b"%s: %s" % (chance.choice(NAMES), value.replace(b"\n", b"")))
        yield b"\r\n".join(lines) + b"\r\n\r\n" + (b"{}" if chance.random() < 0.3 else b"")


def exchange(port: int, request: bytes) -> bytes:
    """Return the beginning of the response; empty if the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(request)
            # Some requests announce a body that never comes.
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)
        except (ConnectionError, TimeoutError):
            return b""


@pytest.mark.parametrize("seed", [1, 2])
def test_no_header_breaks_anything(a_daemon: Start, seed: int) -> None:
    daemon = a_daemon()
    await_open(daemon)
    port = int(daemon.url.rpartition(":")[2])
    seen: set[int] = set()
    for request in requests(seed):
        answer = exchange(port, request)
        if answer:
            status = int(answer[9:12])
            seen.add(status)
            assert status < 500, (request, answer)
    # Several kinds of responses, so the requests reach different parts of the code.
    assert {200, 400, 421} <= seen
    assert_unharmed(daemon)


def assert_unharmed(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log(), daemon.log()[-4000:]
    status = ask(daemon, "GET", "/services/status").value
    assert (status["generation"], status["errors"]) == (1, [])


def refusals(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """Wait for the audit entries of refused requests; they are written after the response."""
    deadline = time.monotonic() + 10
    while True:
        entries = ask(daemon, "GET", "/services/audit").value["entries"]
        refused = [entry for entry in entries if entry["result"] == "refused"]
        if len(refused) >= count:
            return refused
        assert time.monotonic() < deadline, entries
        time.sleep(0.02)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
def test_a_foreign_host_gets_nothing_and_is_audited(a_daemon: Start, host: str) -> None:
    daemon = a_daemon()
    await_open(daemon)
    for method, path in (("GET", "/services/status"), ("POST", "/services/stop/kafka"), ("GET", "/docs")):
        assert ask(daemon, method, path, headers={"Host": host}).status == 421
    assert_unharmed(daemon)
    refused = refusals(daemon, 3)
    assert {(entry["reason"], entry["source"]) for entry in refused} == {("foreign_host", "127.0.0.1")}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://127.0.0.1"]
)
def test_a_foreign_page_changes_nothing_and_is_audited(a_daemon: Start, origin: str) -> None:
    daemon = a_daemon()
    await_open(daemon)
    stop = ask(daemon, "POST", "/services/stop/kafka", headers={"Origin": origin})
    put = ask(daemon, "PUT", "/services/groups/kafka", b'{"state": "off"}', {"Origin": origin})
    assert (stop.status, put.status) == (403, 403)
    assert_unharmed(daemon)
    own = ask(daemon, "POST", "/services/start/kafka", headers={"Origin": daemon.url})
    assert own.status == 200
    refused = refusals(daemon, 2)
    assert [(entry["action"], entry["target"]) for entry in refused] == [("stop", "kafka"), ("put", "kafka")]
