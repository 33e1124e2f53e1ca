"""A daemon of cardboard: a real HTTP server on loopback that gives canned answers and takes notes."""

from __future__ import annotations

import io
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from reconciler import cli
from reconciler.render import Console


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


class Answer(NamedTuple):
    status: int
    body: bytes
    kind: str = "application/json"
    etag: str = ""
    cut: bool = False
    """Whether it breaks off before its end."""
    retry_after: str = ""


def ok(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def problem(status: int, detail: str, remedy: str = "", **more: Any) -> Answer:
    body = {"type": "about:blank", "title": "Conflict", "status": status, "detail": detail, "remedy": remedy}
    return Answer(status, json.dumps(body | more).encode(), "application/problem+json")


class Daemon:
    """Routes are answers, or functions of the request; a path without a route is not found."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Answer | Callable[[Request], Answer]] = {}
        self.requests: list[Request] = []
        self.events: queue.SimpleQueue[tuple[str, Any] | None] | None = None
        self.streaming = threading.Event()
        self.url = ""

    def get(self, path: str, answer: Any) -> None:
        self.routes["GET", path] = answer if isinstance(answer, Answer) or callable(answer) else ok(answer)

    def post(self, path: str, answer: Any) -> None:
        self.routes["POST", path] = (
            answer if isinstance(answer, Answer) or callable(answer) else ok(answer, 202)
        )

    def put(self, path: str, answer: Any) -> None:
        self.routes["PUT", path] = answer if isinstance(answer, Answer) or callable(answer) else ok(answer)

    def stream(self) -> None:
        """Offer /services/events; ``tell`` feeds it."""
        self.events = queue.SimpleQueue()

    def tell(self, name: str, value: Any) -> None:
        assert self.events is not None
        self.events.put((name, value))

    def asked(self, method: str) -> list[str]:
        return [request.path for request in self.requests if request.method == method]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        request = Request(method, parts.path, dict(parse_qsl(parts.query)), dict(self.headers.items()))
        request = request._replace(body=self.rfile.read(int(self.headers.get("Content-Length", 0))))
        daemon = self.server.cardboard
        daemon.requests.append(request)
        if parts.path == "/services/events" and daemon.events is not None:
            self._stream(daemon)
            return
        found = daemon.routes.get((method, parts.path), problem(404, "there is nothing at this address"))
        answer = found(request) if callable(found) else found
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        if answer.etag:
            self.send_header("ETag", answer.etag)
        if answer.retry_after:
            self.send_header("Retry-After", answer.retry_after)
        if answer.cut:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(answer.body), answer.body))
            return
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _stream(self, daemon: Daemon) -> None:
        assert daemon.events is not None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"retry: 2000\n\n: alive\n\n")
        self.wfile.flush()
        daemon.streaming.set()
        number = 0
        while (item := daemon.events.get()) is not None:
            number += 1
            name, value = item
            data = json.dumps(value)
            self.wfile.write(f"id: r-{number}\nevent: {name}\ndata: {data}\n\n".encode())
            self.wfile.flush()
        # For the other streams, and for those that come back.
        daemon.events.put(None)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cardboard = daemon

    def handle_error(self, *_: Any) -> None:
        # A client that hangs up in the middle is part of the game.
        pass


@contextmanager
def a_daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    server = _Server(daemon)
    daemon.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield daemon
    finally:
        if daemon.events is not None:
            daemon.events.put(None)
        server.shutdown()
        thread.join()
        server.server_close()


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run_cli(*words: str) -> Ran:
    """One command line in this process, with no terminal."""
    out, err = io.StringIO(), io.StringIO()
    code = cli.run(list(words), Console(out, err))
    return Ran(code, out.getvalue(), err.getvalue())


# --- what a daemon says -------------------------------------------------------------------------------


def service(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "container": f"alpr-{name}",
        "status": "running",
        "health": "healthy",
        "ready": True,
        "done": False,
        "phase": "converged",
        "reason": "as_desired",
        "message": "",
        "memory_mb": 84.2,
        "cpu_percent": 2.4,
        "uptime": 200,
        "ports": ["9092:9092"],
        "restart_count": 0,
        "drift": [],
        "last_error": None,
        "expected_seconds": None,
    } | fields


def absent(name: str, **fields: Any) -> dict[str, Any]:
    nothing = {"status": "absent", "health": "none", "ready": False, "memory_mb": None, "uptime": None}
    return service(name, **{**nothing, "cpu_percent": None, "ports": [], **fields})


def group(*services: dict[str, Any], **fields: Any) -> dict[str, Any]:
    running = sum(s["status"] == "running" for s in services)
    return {
        "status": "running" if running == len(services) else "partial" if running else "stopped",
        "desired": "on",
        "phase": "converged",
        "reason": "as_desired",
        "message": "",
        "services": list(services),
        "running_count": running,
        "total_count": len(services),
        "total_memory_mb": round(sum(s["memory_mb"] or 0 for s in services), 1),
        "estimated_memory_mb": 700.0,
    } | fields


def a_status(**groups: dict[str, Any]) -> dict[str, Any]:
    services = [s for g in groups.values() for s in g["services"]]
    return {
        "timestamp": "2026-11-23T18:00:00Z",
        "stack": "alpr",
        "total_services": len(services),
        "running_services": sum(s["status"] == "running" for s in services),
        "total_memory_mb": sum(g["total_memory_mb"] for g in groups.values()),
        "pilot_ready": True,
        "generation": 41,
        "observed_generation": 41,
        "converged": True,
        "engine": {"kind": "docker", "version": "28", "reachable": True, "error": None},
        "progress": a_progress(41, "converged"),
        "errors": [],
        "warnings": [],
        "groups": groups,
    }


def a_progress(generation: int, state: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "state": state,
        "reason": "",
        "message": "",
        "done": 0,
        "total": len(steps),
        "percent": 100 if state == "converged" else 0,
        "expected_at": None,
        "steps": list(steps),
    } | fields


def a_step(name: str, action: str, state: str, **fields: Any) -> dict[str, Any]:
    return {
        "service": name,
        "action": action,
        "state": state,
        "attempts": 1,
        "error": None,
        "reason": "",
    } | fields


def known(*names: str, **needs: list[str]) -> dict[str, Any]:
    """The answer of /services/groups; ``needs`` are dependencies."""
    return {
        "groups": {
            name: {
                "services": [f"{name}-1", f"{name}-2"],
                "estimated_ram_mb": 700.0,
                "dependencies": needs.get(name, []),
                "dependents": [other for other, its in needs.items() if name in its],
                "description": f"what {name} does",
            }
            for name in names
        }
    }


class TextConsole:
    """A console that keeps what is printed."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self.console = Console(self._out, io.StringIO())

    def text(self) -> str:
        return self._out.getvalue()
