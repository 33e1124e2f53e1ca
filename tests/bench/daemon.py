"""The daemon as users start it, a process of its own, observed over REST alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.fixture_stack import ROOT, FixtureStack

_BEGIN = 30.0
_LONGEST = 120.0
_PAUSE = 0.03
"""Seconds between looks at the status: half of it is added to our time on average, and it costs us CPU."""


class Daemon:
    """``python -m reconciler run`` on the stack's files. The state directory is kept over restarts."""

    def __init__(
        self, stand: FixtureStack, state: Path, *, host: str = "", more: Mapping[str, str] = {}
    ) -> None:
        self._stand = stand
        self._state = state
        self._environ = {**stand.engine.environ, "SERVICE_MANAGER_LOG_LEVEL": "warning", **more}
        if host:
            self._environ["DOCKER_HOST"] = host
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Daemon:
        files = [word for file in self._stand.files for word in ("--compose-file", str(file))]
        options = ["--desired-state", str(self._stand.desired), "--state-dir", str(self._state)]
        with (self._stand.folder / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reconciler", "run", *options, "--port", str(self.port), *files],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(lambda _: True, _BEGIN)
            self.settled(0, _BEGIN)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """SIGSTOP, so that it does not react."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """One request on a persistent connection; returns status and body."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self._connection.request(method, path)
            reply = self._connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise

    def status(self) -> dict[str, Any]:
        """``GET /services/status``."""
        code, body = self.ask("GET", "/services/status")
        if code != 200:
            raise RuntimeError(f"status answers {code}: {body}")
        found: dict[str, Any] = body
        return found

    def wait(self, good: Any, within: float = _LONGEST) -> dict[str, Any]:
        """Poll the status until the condition holds."""
        deadline = time.monotonic() + within
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the daemon ended:\n{self._log()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = self.status()
                if good(status):
                    return status
            time.sleep(_PAUSE)
        about = {key: status.get(key) for key in ("generation", "observed_generation", "progress", "errors")}
        raise RuntimeError(f"not within {within:.0f} s: {about}\n{self._log()}")

    def settled(self, after: int, within: float = _LONGEST) -> dict[str, Any]:
        """Wait until a generation later than ``after`` has converged."""
        return self.wait(
            lambda status: (
                status["generation"] > after
                and status["observed_generation"] == status["generation"]
                and status["converged"]
            ),
            within,
        )

    def switch(self, on: tuple[str, ...] | None) -> float:
        """Save groups.yaml and wait until converged; returns the seconds from the save to the end."""
        # The daemon closes idle connections, and then the first request is lost.
        before = int(self.wait(lambda _: True)["generation"])
        began = self._stand.switch(on)
        self.settled(before)
        return time.monotonic() - began

    def _log(self) -> str:
        return (self._stand.folder / "daemon.log").read_text(errors="replace")[-2000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
