"""The resources of the HTTP server that one client, or one address, may hold (issue 13, S1 and S2)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from reconciler.daemon.connection_gate import Gate
from reconciler.daemon.http_limits import Limits, limits_for
from tests.support.fixtures.http_clients import Server
from tests.support.fixtures.virtual_time import run_virtually

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
GET = HEAD + b"\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

both = pytest.mark.parametrize("http", ["httptools", "h11"])


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Responds with the length of the body when it is complete."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    told = str(len(body)).encode()
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


class Stream:
    """Responds with an event stream that ends when the client leaves, or on request."""

    def __init__(self) -> None:
        self.open = 0
        self.end = asyncio.Event()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        self.open += 1
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        gone, ended = asyncio.create_task(receive()), asyncio.create_task(self.end.wait())
        await asyncio.wait([gone, ended], return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        ended.cancel()
        await send({"type": "http.response.body", "body": b""})
        self.open -= 1


async def turns() -> None:
    """Run everything that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)


def served(
    http: str, scenario: Callable[[Server], Awaitable[None]], app: object = echo, limits: Limits | None = None
) -> Gate:
    """Run ``scenario`` on a server, in virtual time; its gate must be empty after all connections have
    closed.
    """

    async def run() -> Gate:
        made = app() if isinstance(app, type) else app
        server = Server(made, Gate(limits), http)
        server.state.tasks.clear()
        await scenario(server)
        return server.gate

    return run_virtually(run())


@both
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEAD + b"a: b\r\n" * 101, id="lines"),
        pytest.param(HEAD + b"a: b\r\n" * 101 + b"\r\n", id="lines of a complete head"),
        pytest.param(HEAD + b"a:\r\n" * 250_000, id="endless lines"),
        pytest.param(HEAD + b"a: " + b"b" * 300_000, id="one value"),
        pytest.param(HEAD + b"a" * 300_000, id="one name"),
        pytest.param(HEAD + b"a: " + b"b" * 200_000 + b"\r\n\r\n", id="one value of a complete head"),
        pytest.param(b"GET /" + b"a" * 300_000, id="target"),
        pytest.param(
            HEAD + b"a: " + b"b" * 33_000 + b"\r\nc: " + b"d" * 33_000 + b"\r\n\r\n", id="two values"
        ),
    ],
)
def test_a_head_beyond_the_limits_is_answered_431(http: str, head: bytes) -> None:
    async def scenario(server: Server) -> None:
        for size in (7, 1000, len(head)):
            client = server.connect()
            for start in range(0, min(len(head), 400_000), size):
                client.send(head[start : start + size])
            await turns()
            assert client.statuses == [431], size
            problem = json.loads(client.transport.sent.partition(b"\r\n\r\n")[2].removesuffix(b"<end>"))
            assert problem["reason"] == "head_too_large"
            await asyncio.sleep(2)
            assert client.closed
        assert len(server.gate) == 0

    served(http, scenario)


@both
def test_a_head_within_the_limits_is_served(http: str) -> None:
    async def scenario(server: Server) -> None:
        client = server.connect()
        head = HEAD + b"a: b\r\n" * 90 + b"c: " + b"d" * 50_000 + b"\r\n\r\n"
        for start in range(0, len(head), 1500):
            client.send(head[start : start + 1500])
        await turns()
        assert client.statuses == [200]
        client.send(GET)
        await turns()
        assert client.statuses == [200, 200]

    served(http, scenario)


@both
def test_trailers_are_limited_like_a_head(http: str) -> None:
    async def scenario(server: Server) -> None:
        for trailers in (b"a: b\r\n" * 101 + b"\r\n", b"a: " + b"b" * 300_000, b"a:\r\n" * 100_000):
            client = server.connect()
            client.send(CHUNKED + b"1\r\nx\r\n0\r\n" + trailers)
            await turns()
            assert client.statuses == [431]
            await asyncio.sleep(2)
            assert client.closed
        few = server.connect()
        few.send(CHUNKED + b"1\r\nx\r\n0\r\na: b\r\n\r\n")
        await turns()
        assert few.statuses == [200]

    served(http, scenario)


@both
@pytest.mark.parametrize(
    ("said", "within", "status"),
    [(b"", 10, []), (HEAD, 10, [408]), (POST + b"12345", 30, [408]), (CHUNKED + b"1\r\nx\r\n", 30, [408])],
)
def test_a_request_that_is_not_complete_in_time_is_closed(
    http: str, said: bytes, within: int, status: list[int]
) -> None:
    async def scenario(server: Server) -> None:
        client = server.connect()
        if said:
            client.send(said)
        await asyncio.sleep(within - 1)
        assert not client.closed
        await asyncio.sleep(2)
        assert client.closed
        assert client.statuses == status
        assert len(server.gate) == 0

    served(http, scenario)


@both
def test_a_trickle_of_bytes_extends_no_deadline(http: str) -> None:
    async def scenario(server: Server) -> None:
        kept = server.connect()
        kept.send(GET)
        await turns()
        for start in (b"GET /", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"):
            client = server.connect()
            client.send(GET)
            await turns()
            client.send(start)
            for _ in range(50):
                await asyncio.sleep(1)
                client.send(b"a")
            assert client.closed
            assert client.statuses == [200, 408]
        assert kept.closed

    served(http, scenario)


@both
def test_blank_lines_keep_no_idle_connection_open(http: str) -> None:
    async def scenario(server: Server) -> None:
        client = server.connect()
        client.send(GET)
        await turns()
        for _ in range(40):
            await asyncio.sleep(1)
            client.send(b"\r\n")
        assert client.closed

    served(http, scenario)


@both
def test_a_stream_outlives_every_deadline_and_ends_with_its_client(http: str) -> None:
    stream = Stream()

    async def scenario(server: Server) -> None:
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(GET)
        # A second request behind a response that never ends: incomplete, complete, and absent.
        clients[0].send(HEAD)
        clients[1].send(GET)
        await asyncio.sleep(3600)
        assert stream.open == 3
        assert not any(client.closed for client in clients)
        for client in clients:
            client.leave()
        await turns()
        assert stream.open == 0
        assert len(server.gate) == 0

    served(http, scenario, stream)


@both
def test_the_oldest_incomplete_request_of_an_address_makes_room(http: str) -> None:
    async def scenario(server: Server) -> None:
        other = server.connect("192.0.2.2")
        other.send(HEAD)
        held = [server.connect() for _ in range(1200)]
        for client in held:
            client.send(HEAD)
        assert server.gate.incomplete("192.0.2.1") == 256
        assert [client.closed for client in held] == [True] * 944 + [False] * 256
        # Connections that had sent something before they were closed got a response.
        assert {tuple(client.statuses) for client in held[:944]} <= {(), (503,)}
        one = server.connect()
        one.send(GET)
        await turns()
        assert one.statuses == [200]
        other.send(b"\r\n")
        await turns()
        assert other.statuses == [200]
        assert server.gate.incomplete("192.0.2.1") == 255

    served(http, scenario)


@both
def test_complete_requests_and_streams_count_only_in_the_total(http: str) -> None:
    stream = Stream()

    async def scenario(server: Server) -> None:
        streams = []
        for _ in range(40):
            streams.append(server.connect())
            streams[-1].send(GET)
        await turns()
        assert stream.open == 40
        assert server.gate.incomplete("192.0.2.1") == 0
        refused = server.connect("192.0.2.9")
        assert refused.statuses == [503]
        assert refused.closed
        streams[0].leave()
        await turns()
        again = server.connect("192.0.2.9")
        again.send(GET)
        await turns()
        assert again.statuses == [200]

    served(http, scenario, stream, Limits(connections=40, incomplete=10))


@both
def test_at_the_limit_idle_and_then_incomplete_connections_make_room(http: str) -> None:
    async def scenario(server: Server) -> None:
        idle = server.connect()
        idle.send(GET)
        await turns()
        half = [server.connect("192.0.2.3") for _ in range(3)]
        for client in half:
            client.send(HEAD)
        first, second = server.connect("192.0.2.4"), server.connect("192.0.2.5")
        assert idle.closed
        assert idle.statuses == [200]
        assert [client.closed for client in half] == [True, False, False]
        for client in (first, second):
            client.send(GET)
        await turns()
        assert first.statuses == second.statuses == [200]

    served(http, scenario, limits=Limits(connections=4, incomplete=4))


@both
def test_a_client_that_reads_no_response_is_disconnected_for_others(http: str) -> None:
    async def scenario(server: Server) -> None:
        stuck = server.connect()
        stuck.send(GET)
        await turns()
        stuck.transport.stuck = 5000
        server.connect()
        await turns()
        assert stuck.closed
        assert len(server.gate) == 1

    served(http, scenario, limits=Limits(connections=1))


@both
def test_ipv6_addresses_count_by_their_64_bits(http: str) -> None:
    async def scenario(server: Server) -> None:
        for host in range(20):
            server.connect(f"2001:db8::1:{host:x}").send(HEAD)
        server.connect("2001:db8:0:1::1").send(HEAD)
        server.connect("::ffff:192.0.2.1").send(HEAD)
        assert server.gate.incomplete("2001:db8::") == 10
        assert server.gate.incomplete("2001:db8:0:1::") == 1
        assert server.gate.incomplete("192.0.2.1") == 1

    served(http, scenario, limits=Limits(incomplete=10))


def test_sixteen_pipelined_requests_wait_and_the_next_is_refused() -> None:
    stream = Stream()

    async def scenario(server: Server) -> None:
        client = server.connect()
        client.send(GET * 400)
        await turns()
        assert client.statuses == [200]
        assert not client.closed
        stream.end.set()
        for _ in range(20):
            await turns()
        assert client.statuses == [200] * 17 + [503]
        await asyncio.sleep(2)
        assert client.closed

    served("httptools", scenario, stream)


def test_with_h11_pipelined_requests_wait_as_bytes() -> None:
    async def scenario(server: Server) -> None:
        client = server.connect()
        client.send(GET * 400)
        assert not client.transport.reading
        for _ in range(400):
            await turns()
        assert client.statuses == [200] * 400

    served("h11", scenario)


@both
def test_due_responses_come_before_the_refusal_of_later_requests(http: str) -> None:
    async def scenario(server: Server) -> None:
        client = server.connect()
        client.send(GET + b"nonsense\r\n\r\n" + GET)
        await turns()
        assert client.statuses == [200, 400]
        await asyncio.sleep(2)
        assert client.closed

    served(http, scenario)


@both
def test_unfinished_bodies_share_a_limit(http: str) -> None:
    async def scenario(server: Server) -> None:
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(post + b"x" * 400)
            await turns()
        assert [client.statuses for client in clients] == [[], [], [503]]
        clients[0].send(b"x" * 100)
        clients[1].leave()
        await turns()
        clients[0].send(b"x" * 400)
        await turns()
        assert clients[0].statuses == [200]
        assert server.gate.bodies == 0

    served(http, scenario, limits=Limits(bodies=1000))


@both
def test_a_thousand_refusals_are_one_line_of_the_log(http: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Server) -> None:
        for _ in range(1000):
            server.connect().send(HEAD)
            server.connect().send(b"nonsense\r\n\r\n")
            upgrade = server.connect()
            upgrade.send(HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            await turns()
            assert upgrade.statuses == [200]
            upgrade.leave()

    with caplog.at_level(logging.WARNING):
        served(http, scenario, limits=Limits(incomplete=10))
    assert [record.message for record in caplog.records] == ["refusing HTTP connections"]


@pytest.mark.parametrize(
    ("descriptors", "connections", "incomplete"),
    [(65536, 1024, 256), (2048, 1024, 256), (1024, 768, 256), (256, 128, 64), (64, 16, 8)],
)
def test_descriptors_are_reserved_for_the_loop(descriptors: int, connections: int, incomplete: int) -> None:
    limits = limits_for(descriptors)
    assert (limits.connections, limits.incomplete) == (connections, incomplete)
