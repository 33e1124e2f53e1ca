"""The HTTP client against a small HTTP server."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.client import Client, ClientError, Refused, UnexpectedServer, Unreachable, quote_path
from reconciler.cli.connection import Connection
from tests.support.fixtures.stub_server import CannedResponse, Request, StubDaemon, a_daemon, ok, problem


@pytest.fixture
def daemon() -> Iterator[StubDaemon]:
    with a_daemon() as stub:
        yield stub


def test_get_and_post(daemon: StubDaemon) -> None:
    daemon.get("/services/status", {"converged": True})
    daemon.post("/services/start/a%20b", {"generation": 2})
    client = Client(daemon.url)
    assert client.get("/services/status") == {"converged": True}
    query = {"force": True, "with_dependencies": False, "wait": None}
    assert client.post(f"/services/start/{quote_path('a b')}", query) == {"generation": 2}
    assert daemon.requests[-1].query == {"force": "true"}
    assert daemon.requests[-1].headers["Content-Length"] == "0"


def test_key_is_sent_in_a_header(daemon: StubDaemon) -> None:
    daemon.get("/x", {})
    Client(daemon.url, "secret").get("/x")
    assert daemon.requests[-1].headers["X-API-Key"] == "secret"
    Client(daemon.url).get("/x")
    assert "X-API-Key" not in daemon.requests[-1].headers


def test_path_of_the_url_is_kept(daemon: StubDaemon) -> None:
    daemon.get("/behind/proxy/x", {"here": 1})
    assert Client(f"{daemon.url}/behind/proxy").get("/x") == {"here": 1}


def test_error_response_has_detail_and_remedy(daemon: StubDaemon) -> None:
    daemon.post(
        "/x", problem(409, "storage needs kafka, which is off", "add force=true", reason="dependency_off")
    )
    with pytest.raises(Refused) as caught:
        Client(daemon.url).post("/x")
    error = caught.value
    assert (error.status, str(error), error.remedy) == (
        409,
        "storage needs kafka, which is off",
        "add force=true",
    )
    assert error.value["reason"] == "dependency_off"


@pytest.mark.parametrize("status", [401, 403])
def test_missing_key_has_a_remedy(daemon: StubDaemon, status: int) -> None:
    daemon.get("/x", problem(status, "Invalid API key"))
    with pytest.raises(Refused) as caught:
        Client(daemon.url).get("/x")
    assert "--api-key-file" in caught.value.remedy


@pytest.mark.parametrize(
    "answer",
    [
        CannedResponse(200, b"<html>", "text/html"),
        CannedResponse(404, b"<html>", "text/html"),
        CannedResponse(302, b"", "text/html"),
        CannedResponse(500, b"[]"),
    ],
)
def test_other_server_at_the_address(daemon: StubDaemon, answer: CannedResponse) -> None:
    daemon.get("/x", answer)
    with pytest.raises(UnexpectedServer):
        Client(daemon.url).get("/x")


def test_no_server_at_the_address() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            Client(url).get("/x")
    assert "connection refused" in str(caught.value)
    assert "service-manager run" in caught.value.remedy
    assert "--url" in caught.value.remedy


def test_unknown_host() -> None:
    with pytest.raises(Unreachable, match=r"no such host|failure in name"):
        Client("http://nowhere.invalid:8000").get("/x")


def test_response_that_takes_too_long() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(Unreachable, match="does not answer within"):
            Client(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05).get("/x")


def test_server_of_another_protocol() -> None:
    import threading

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UnexpectedServer):
            Client(f"http://127.0.0.1:{server.getsockname()[1]}").get("/x")
        thread.join()


def test_events(daemon: StubDaemon) -> None:
    daemon.stream()
    daemon.tell("status", {"text": "two\nlines"})
    daemon.tell("progress", {"generation": 1})
    client = Client(daemon.url)
    with client.events("/services/events", last_id="r-7") as events:
        events_read = [next(events) for _ in range(3)]
    assert [event.name for event in events_read] == ["", "status", "progress"]
    assert events_read[1].value == {"text": "two\nlines"}
    assert events_read[2].id == "r-2"
    assert daemon.requests[-1].headers["Last-Event-ID"] == "r-7"


def test_response_that_is_not_a_stream(daemon: StubDaemon) -> None:
    daemon.get("/services/events", {"no": "stream"})
    with pytest.raises(UnexpectedServer), Client(daemon.url).events("/services/events"):
        pass


# --- the key ------------------------------------------------------------------------------------------


def key_of(daemon: StubDaemon, file: str | None, stdin: str = "", **environ: str) -> str | None:
    seen: list[Request] = []

    def route(request: Request) -> CannedResponse:
        seen.append(request)
        return ok({})

    daemon.get("/x", route)
    Connection(daemon.url, file).open(environ, io.StringIO(stdin)).get("/x")
    return seen[0].headers.get("X-API-Key")


def test_where_the_key_comes_from(daemon: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    assert key_of(daemon, None) is None
    assert key_of(daemon, None, SERVICE_MANAGER_API_KEY="from-env") == "from-env"
    assert key_of(daemon, str(tmp_path / "key"), SERVICE_MANAGER_API_KEY="from-env") == "from-file"
    assert key_of(daemon, "-", stdin="from-stdin\nrest") == "from-stdin"


def test_unusable_key_files(daemon: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("a\nb")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("empty", "two", "binary", "absent"):
        with pytest.raises(ClientError):
            key_of(daemon, str(tmp_path / name))


def starting(times: int, then: Any, retry_after: str = "0") -> Callable[[Request], CannedResponse]:
    """A daemon that has not read its files yet for so many requests."""
    left = [problem(503, "not read yet", reason="starting")._replace(retry_after=retry_after)] * times

    def answer(_: Request) -> CannedResponse:
        return left.pop() if left else ok(then)

    return answer


def test_request_is_retried_while_the_daemon_reads_its_files(daemon: StubDaemon) -> None:
    waiting: list[str] = []
    client = Client(daemon.url, on_wait=lambda: waiting.append("waiting"))
    daemon.get("/x", starting(3, {"x": 1}))
    daemon.post("/x", starting(1, {"x": 2}))
    daemon.put("/x", starting(1, {"x": 3}))
    assert client.get("/x") == {"x": 1}
    assert client.post("/x") == {"x": 2}
    assert client.put("/x", {"a": 1}) == {"x": 3}
    assert [request.body for request in daemon.requests if request.method == "PUT"] == [b'{"a": 1}'] * 2
    assert waiting == ["waiting"] * 3


def test_retries_have_a_time_limit(daemon: StubDaemon) -> None:
    daemon.get("/x", starting(1_000, {}))
    with pytest.raises(Refused, match="not read yet"):
        Client(daemon.url, starting_timeout=0.3).get("/x")
    assert 2 <= len(daemon.requests) <= 5


def test_other_error_responses_are_not_retried(daemon: StubDaemon) -> None:
    daemon.get("/x", problem(503, "going down", reason="going_down"))
    with pytest.raises(Refused):
        Client(daemon.url).get("/x")
    assert len(daemon.requests) == 1


def test_refused_connection_is_retried_until_the_daemon_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(Unreachable, match="connection refused"):
            Client(url).get("/x")
        served = threading.Thread(target=_serve_once, args=(bound,))
        # Begins to listen only once the client was refused for the first time.
        client = Client(url, absent_timeout=60.0, on_wait=served.start)
        assert client.get("/x") == {}
        served.join()


def _serve_once(bound: socket.socket) -> None:
    bound.listen()
    connection, _ = bound.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")
