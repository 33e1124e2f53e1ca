"""The daemon as a process, controlled by signals, files, REST and CLI."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.harness.child_process import ChildProcess

ROOT = Path(__file__).resolve().parents[3]
Json = dict[str, Any]
PROGRAM = (sys.executable, "-m", "reconciler")


class RequestRefused(AssertionError):
    """The daemon refused a request: ``status`` and the problem details."""

    def __init__(self, status: int, value: Json) -> None:
        super().__init__(f"{status}: {value}")
        self.status = status
        self.value = value


class Daemon(ChildProcess):
    """``service-manager run`` on one directory and one state directory; started and ended many times.

    ``environ`` is its whole environment, ``program`` the program to run. ``status`` is the newest status
    event (SSE).
    """

    def __init__(
        self, desired: Path, state: Path, environ: Mapping[str, str], compose_files: tuple[Path, ...] = ()
    ) -> None:
        self.desired = desired
        self.state = state
        self.environ = dict(environ)
        self.resync = 60.0
        self.program = list(PROGRAM)
        self._compose_files = compose_files
        self._port = 0
        self._log = state.parent / f"{state.name}.log"
        self._ear: _EventListener | None = None

    # --- process ---

    def start(self, resync: float = 60.0, *, wait: bool = True, port: int = 0) -> Daemon:
        """Start it, on a free port by default; on return it answers, unless ``wait`` is false."""
        assert not self.running
        self.resync = resync
        self._port = port or free_port()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command("run", "--port", str(self._port), "--resync", f"{resync:g}"),
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.await_answer()
        return self

    def command(self, word: str, *arguments: str) -> list[str]:
        """The command line of a command with the same directories."""
        more = [part for file in self._compose_files for part in ("--compose-file", str(file))]
        where = ["--desired-state", str(self.desired), "--state-dir", str(self.state)]
        return [*(self.program if word == "run" else PROGRAM), word, *where, *more, *arguments]

    def await_answer(self, within: float = 60.0) -> None:
        """Wait until it answers and the event stream is open."""
        deadline = time.monotonic() + within
        while True:
            assert self.running, (
                f"it ended with {self._process and self._process.poll()}:\n{self.log()[-3000:]}"
            )
            try:
                self.get("/healthz", timeout=5.0)
                break
            except OSError:
                assert time.monotonic() < deadline, self.log()[-3000:]
                time.sleep(0.02)
        self._ear = _EventListener(self._port)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def end(self, within: float = 15.0) -> tuple[int, float]:
        """Send SIGTERM; returns the exit code and the seconds it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        try:
            return self._process.wait(within), time.monotonic() - began
        finally:
            self._deafen()

    def kill(self) -> None:
        """Send SIGKILL; its children stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        self._deafen()

    def wait_for_exit(self, within: float = 20.0) -> int:
        """Wait for its end; returns the exit code."""
        assert self._process is not None
        code = self._process.wait(within)
        self._deafen()
        return code

    def log(self) -> str:
        """Its log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _deafen(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()

    # --- REST ---

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str, *, timeout: float = 30.0) -> Any:
        """GET."""
        return self._ask("GET", path, timeout)

    def post(self, path: str, *, timeout: float = 60.0) -> Json:
        """POST."""
        found: Json = self._ask("POST", path, timeout)
        return found

    def put(self, path: str, body: Json) -> Json:
        """PUT or POST with a body."""
        found: Json = self._ask("PUT", path, 60.0, body)
        return found

    def _ask(self, method: str, path: str, timeout: float, body: Json | None = None) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._ask_once(method, path, timeout, body)
            except RequestRefused as error:
                # It answers 503 until it has read its files.
                starting = error.status == 503 and error.value.get("reason") == "starting"
                if not starting or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _ask_once(self, method: str, path: str, timeout: float, body: Json | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        value = json.loads(content) if content else None
        if answer.status >= 300:
            raise RequestRefused(answer.status, value)
        return value

    # --- events ---

    @property
    def status(self) -> Json:
        """The newest status event."""
        assert self._ear is not None
        return self._ear.status

    def until(self, good: Callable[[Json], Any], within: float = 30.0) -> Json:
        """Wait for a status."""
        assert self._ear is not None
        return self._ear.until(good, within, self.log)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend the process for a while, so that it sees all changes of that time at once."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def converged(self, generation: int | None = None, within: float = 40.0) -> Json:
        """Wait until this generation (by default the current one) is converged."""

        def good(status: Json) -> bool:
            return (
                status["converged"]
                and status["generation"] == status["observed_generation"]
                and status["progress"]["state"] == "converged"
                and status["generation"] >= (generation or 0)
                and not status["errors"]
            )

        return self.until(good, within)

    def service(self, name: str, status: Json | None = None) -> Json:
        """The status of a service."""
        return service_of(status or self.get("/services/status"), name)

    # --- CLI ---

    def cli(
        self, *arguments: str, within: float = 60.0, local: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command: over REST, or (``local``) with the directories of ``command``."""
        return subprocess.run(
            self.command(*arguments) if local else [*PROGRAM, *arguments],
            cwd=ROOT,
            env=self.environ | {"SERVICE_MANAGER_URL": self.url},
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )


def service_of(status: Json, name: str) -> Json:
    """One service in a status."""
    for group in status["groups"].values():
        for service in group["services"]:
            if service["name"] == name:
                found: Json = service
                return found
    raise KeyError(name)


class _EventListener:
    """Reads the stream of events in a thread and keeps the newest status."""

    def __init__(self, port: int) -> None:
        self.status: Json = {}
        self._changed = threading.Condition()
        self._ended = ""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", "/services/events")
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def until(self, good: Callable[[Json], Any], within: float, log: Callable[[], str]) -> Json:
        deadline = time.monotonic() + within
        with self._changed:
            while not (self.status and good(self.status)):
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(
                        f"{self._ended or f'not in {within:g} s'}: {_short(self.status)}\n{log()[-4000:]}"
                    )
                self._changed.wait(left)
            return self.status

    def close(self) -> None:
        # Close the socket itself: closing the response would wait for the reader's lock.
        with contextlib.suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._answer.close()
        self._connection.close()

    def _listen(self) -> None:
        event = ""
        try:
            while line := self._answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "status":
                    status = json.loads(value)
                    with self._changed:
                        self.status = status
                        self._changed.notify_all()
            self._end("the stream ended")
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            self._end(f"the stream broke: {error!r}")

    def _end(self, why: str) -> None:
        with self._changed:
            self._ended = why
            self._changed.notify_all()


def _short(status: Json) -> str:
    if not status:
        return "no status"
    lines = [
        f"generation {status['generation']}/{status['observed_generation']} converged {status['converged']}"
        f" engine {status['engine']['reachable']} progress {status['progress']['state']}"
        f" {status['progress']['message']} errors {status['errors']}"
    ]
    for group in status["groups"].values():
        lines += [
            f"  {s['name']}: {s['status']} {s['health']} {s['phase']} {s['reason']} {s['message']}"
            for s in group["services"]
        ]
    return "\n".join(lines)


def free_port() -> int:
    """A free port outside the range that the system assigns."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
