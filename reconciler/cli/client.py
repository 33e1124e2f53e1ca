"""Talks to the daemon over HTTP. Standard library only: the command line must start fast and stay small.

ClientError
├── Unreachable     nobody answers there, or not in time
├── NotADaemon      somebody answers, and it is not a service-manager
└── Refused         the daemon said no: status, title, detail and remedy of its problem details
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from reconciler.errors import ServiceManagerError

_TIMEOUT = 15.0
"""Seconds for an answer: reads come from memory, writes wait for the disk."""
STARTING = 60.0
"""Seconds for which a daemon that has not read its files yet is asked again: Docker Compose may take 30."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_MOST = 64 * 2**20


class ClientError(ServiceManagerError):
    """A request that brought no answer to use. ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Unreachable(ClientError):
    """Nobody answers at the address."""


class UnexpectedServer(ClientError):
    """What answers there speaks no language of ours."""


class Refused(ClientError):
    """The daemon's problem details. ``value`` is all that it sent."""

    def __init__(
        self,
        status: int,
        message: str,
        remedy: str = "",
        value: Mapping[str, Any] | None = None,
        retry_after: str = "",
    ) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.value = value or {}
        self.retry_after = retry_after

    @property
    def starting(self) -> bool:
        """Whether the daemon only has not read its files yet."""
        return self.status == 503 and self.value.get("reason") == "starting"


class Event(NamedTuple):
    """One Server-Sent Event."""

    name: str
    value: Any
    id: str = ""


class Client:
    """One daemon. Every request has a connection of its own; nothing is kept between them.

    ``starting`` is how many seconds a daemon that has not read its files yet is asked again, ``absent`` how
    many seconds one that refuses the connection is waited for: it may just be starting. ``waiting`` is
    called once when one of these begins.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        timeout: float = _TIMEOUT,
        starting: float = STARTING,
        absent: float = 0.0,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self._key = key
        self._timeout = timeout
        self._parts = urlsplit(url)
        self._starting = starting
        self._absent = absent
        self._waiting = waiting

    def get(
        self, path: str, query: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Any:
        """The JSON answer to a GET.

        Raises:
            ClientError: see the module.
        """
        return self._json("GET", path, query, timeout)

    def post(
        self, path: str, query: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Any:
        """The JSON answer to a POST without a body; raises as ``get``."""
        return self._json("POST", path, query, timeout)

    def get_with_etag(self, path: str) -> tuple[Any, str]:
        """The JSON answer to a GET and its ETag; raises as ``get``."""
        with self._request("GET", path, None, self._timeout, {"Accept": "application/json"}) as response:
            return self._parsed(response), response.headers.get("ETag", "")

    def put(self, path: str, body: Mapping[str, object], *, if_match: str = "") -> Any:
        """The JSON answer to a PUT; raises as ``get``."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if if_match:
            headers["If-Match"] = if_match
        content = json.dumps(body).encode()
        with self._request("PUT", path, None, self._timeout, headers, content) as response:
            return self._parsed(response)

    @contextmanager
    def lines(
        self, path: str, query: Mapping[str, object] | None = None, *, quiet: float | None = None
    ) -> Iterator[Iterator[str]]:
        """Lines of plain text as they come, open while the ``with`` lasts.

        ``quiet`` is how many seconds may pass without one, None: as many as there are.

        Raises:
            ClientError: it can't be opened, or (from within) it broke off.
        """
        headers = {"Accept": "text/plain, application/problem+json"}
        with self._request("GET", path, query, quiet, headers) as response:
            if "text/plain" not in response.headers.get("Content-Type", ""):
                raise UnexpectedServer(f"{self.url}{path} is no text", "is the daemon of another version?")
            try:
                yield _split_lines(response)
            except http.client.IncompleteRead:
                raise Unreachable("the answer broke off", "the daemon or the engine went away") from None

    @contextmanager
    def events(self, path: str, *, last_id: str = "", quiet: float = 60.0) -> Iterator[Iterator[Event]]:
        """A stream of events, open while the ``with`` lasts; it ends when the daemon ends it.

        ``quiet`` is how many seconds may pass without a word, comments included. A comment is an event
        without a name.

        Raises:
            ClientError: it can't be opened, or (from within) it broke off.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        with self._request("GET", path, None, quiet, headers) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise UnexpectedServer(f"{self.url}{path} is not a stream of events")
            yield _parse_events(response)

    def _json(self, method: str, path: str, query: Mapping[str, object] | None, timeout: float | None) -> Any:
        headers = {"Accept": "application/json"}
        with self._request(method, path, query, timeout or self._timeout, headers) as response:
            return self._parsed(response)

    def _parsed(self, response: http.client.HTTPResponse) -> Any:
        try:
            return json.loads(response.read(_MOST))
        except ValueError:
            raise UnexpectedServer(
                f"{self.url} answers, but not as a service-manager does", "check --url"
            ) from None

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        timeout: float | None,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        if self._key:
            headers["X-API-Key"] = self._key
        if method == "POST":
            headers["Content-Length"] = "0"
        connections = self._connections(timeout)
        connection = next(connections)
        try:
            while True:
                try:
                    connection.request(method, self._target(path, query), body, headers)
                    response = connection.getresponse()
                    if response.status >= 300:
                        raise self._refusal(response, path)
                except (ConnectionRefusedError, Refused) as error:
                    connection.close()
                    connection = connections.send(error)
                else:
                    break
            yield response
        except ssl.SSLError as error:
            raise Unreachable(f"{self.url}: {error.reason or error}", "check --url") from error
        except TimeoutError as error:
            raise Unreachable(f"{self.url} does not answer within {timeout or 0:.0f} s", _HOW) from error
        except OSError as error:
            raise Unreachable(f"no daemon answers at {self.url}: {_reason(error)}", _HOW) from error
        except http.client.HTTPException as error:
            raise UnexpectedServer(
                f"{self.url} does not answer as a service-manager does: {type(error).__name__}",
                "check --url, and http:// against https://",
            ) from error
        finally:
            connection.close()

    def _connections(
        self, timeout: float | None
    ) -> Generator[http.client.HTTPConnection, ConnectionRefusedError | Refused, None]:
        """Connections to ask over, one more for each failure sent in that is over soon; else it is raised."""
        began = time.monotonic()
        first = True
        while True:
            error = yield self._connection(timeout)
            refused = isinstance(error, Refused)
            left = began + (self._starting if refused else self._absent) - time.monotonic()
            if left <= 0 or (isinstance(error, Refused) and not error.starting):
                raise error
            if first:
                self._waiting()
                first = False
            pause = _seconds(error.retry_after) if isinstance(error, Refused) else _SHORTEST_PAUSE
            time.sleep(min(pause, left))

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        host = self._parts.hostname or "127.0.0.1"
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, self._parts.port, timeout=timeout)
        return http.client.HTTPConnection(host, self._parts.port, timeout=timeout)

    def _target(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {name: _text(value) for name, value in (query or {}).items() if value not in (None, False)}
        return self._parts.path + path + (f"?{urlencode(given)}" if given else "")

    def _refusal(self, response: http.client.HTTPResponse, path: str) -> ClientError:
        try:
            value = json.loads(response.read(_MOST))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return UnexpectedServer(
                f"{self.url}{path} answers with {response.status} {response.reason}", "check --url"
            )
        status = response.status
        detail = value.get("detail")
        message = detail if isinstance(detail, str) and detail else str(value.get("title") or response.reason)
        remedy = str(value.get("remedy") or value.get("hint") or "")
        if value.get("reason") in {"missing_key", "invalid_key"} or (not remedy and status in {401, 403}):
            # What the daemon says is meant for whoever speaks HTTP.
            remedy = "give the API key with --api-key-file FILE or in SERVICE_MANAGER_API_KEY"
        return Refused(status, message, remedy, value, response.headers.get("Retry-After", ""))


_HOW = (
    "start it with `service-manager run` (installed: `systemctl start service-manager`), "
    "or say where it is with --url"
)


def _seconds(text: str) -> float:
    """A pause out of a Retry-After, in seconds; a date is not understood, and a second then."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, float(text))) if text.isdecimal() else 1.0


def quote_path(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _text(value: object) -> str:
    return "true" if value is True else str(value)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    return (error.strerror or str(error) or type(error).__name__).lower()


def _split_lines(response: http.client.HTTPResponse) -> Iterator[str]:
    # Not `for line in response`: that takes an answer that was cut for one that ended.
    rest = b""
    while chunk := response.read1(2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _parse_events(response: http.client.HTTPResponse) -> Iterator[Event]:
    name, data, identity = "", [], ""
    for raw in response:
        line = raw.decode(errors="replace").rstrip("\r\n")
        field, _, text = line.partition(":")
        text = text.removeprefix(" ")
        if line:
            if field == "event":
                name = text
            elif field == "data":
                data.append(text)
            elif field == "id":
                identity = text
            elif not field:
                # A comment: the daemon is there and has nothing to say. Whoever reads may want to look up.
                yield Event("", None, identity)
            continue
        if data:
            try:
                yield Event(name or "message", json.loads("\n".join(data)), identity)
            except ValueError:
                raise UnexpectedServer("the stream of events holds something that is not JSON") from None
        name, data = "", []
