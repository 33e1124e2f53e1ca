"""A client that knows nothing but HTTP: one connection each, raw bytes where a test wants them."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.e2e.daemon import Daemon


class Answer(NamedTuple):
    """What came back; ``value`` is the body as JSON where it is that."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


def ask(
    daemon: Daemon,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    timeout: float = 30.0,
) -> Answer:
    """One request, with no header but those that HTTP needs and those given."""
    parts = urlsplit(daemon.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, told, answer.read())
    finally:
        connection.close()


def await_open(daemon: Daemon, within: float = 20.0) -> None:
    """Until it has taken in its files and converged to them once."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if ask(daemon, "GET", "/readyz").status == 200:
                return
        except OSError:
            assert daemon.running, daemon.log()[-3000:]
        time.sleep(0.02)
    raise AssertionError(daemon.log()[-3000:])
