"""Calls the daemon over HTTP. Standard library only, so that the command line starts quickly.

ClientError
├── Unreachable         no answer, or not in time
├── UnexpectedServer    the server is not a Service Manager daemon
└── Refused             an error response: status, title, detail and remedy of its problem details
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
"""Seconds for a response: reads come from memory, writes wait for the disk."""
STARTING = 60.0
"""Seconds to retry while the daemon still reads its files: Docker Compose may take 30."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_LARGEST_RESPONSE = 64 * 2**20
"""Bytes."""


class ClientError(ServiceManagerError):
    """A request without a usable response. ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Unreachable(ClientError):
    """No server answers at the address."""


class UnexpectedServer(ClientError):
    """The server is not a Service Manager daemon."""


class Refused(ClientError):
    """An error response. ``value`` is its whole JSON body."""

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
    def is_starting(self) -> bool:
        """Whether the daemon has not read its files yet."""
        return self.status == 503 and self.value.get("reason") == "starting"


class Event(NamedTuple):
    """One Server-Sent Event."""

    name: str
    value: Any
    id: str = ""


class Client:
    """Client of one daemon. Every request opens a new connection.

    Requests are retried for ``starting_timeout`` seconds while the daemon reads its files, and for
    ``absent_timeout`` seconds while it refuses connections, because it may be starting. ``on_wait`` is called
    once before the first retry of a request.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        timeout: float = _TIMEOUT,
        starting_timeout: float = STARTING,
        absent_timeout: float = 0.0,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self._key = key
        self._timeout = timeout
        self._parts = urlsplit(url)
        self._starting_timeout = starting_timeout
        self._absent_timeout = absent_timeout
        self._on_wait = on_wait

    def get(
        self, path: str, query: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Return the JSON response to a GET. ``timeout`` is in seconds.

        Raises:
            ClientError: see the module.
        """
        return self._json("GET", path, query, timeout)

    def post(
        self, path: str, query: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Any:
        """Return the JSON response to a POST without a body; raises like ``get``."""
        return self._json("POST", path, query, timeout)

    def get_with_etag(self, path: str) -> tuple[Any, str]:
        """Return the JSON response to a GET, and its ETag; raises like ``get``."""
        with self._request("GET", path, None, self._timeout, {"Accept": "application/json"}) as response:
            return self._parsed(response), response.headers.get("ETag", "")

    def put(self, path: str, body: Mapping[str, object], *, if_match: str = "") -> Any:
        """Return the JSON response to a PUT; raises like ``get``."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if if_match:
            headers["If-Match"] = if_match
        content = json.dumps(body).encode()
        with self._request("PUT", path, None, self._timeout, headers, content) as response:
            return self._parsed(response)

    @contextmanager
    def lines(
        self, path: str, query: Mapping[str, object] | None = None, *, idle_timeout: float | None = None
    ) -> Iterator[Iterator[str]]:
        """Iterate over the lines of a plain-text response as they arrive.

        ``idle_timeout`` is the longest time between two lines, in seconds; None: no limit.

        Raises:
            ClientError: the request failed, or (during iteration) the response broke off.
        """
        headers = {"Accept": "text/plain, application/problem+json"}
        with self._request("GET", path, query, idle_timeout, headers) as response:
            if "text/plain" not in response.headers.get("Content-Type", ""):
                raise UnexpectedServer(
                    f"{self.url}{path} does not return text", "check the version of the daemon"
                )
            try:
                yield _split_lines(response)
            except http.client.IncompleteRead:
                raise Unreachable(
                    "the response broke off", "check whether the daemon and the engine still run"
                ) from None

    @contextmanager
    def events(
        self, path: str, *, last_id: str = "", idle_timeout: float = 60.0
    ) -> Iterator[Iterator[Event]]:
        """Iterate over a stream of events until the daemon ends it.

        ``idle_timeout`` is the longest time between two events, in seconds. A comment counts as an event
        without a name.

        Raises:
            ClientError: the request failed, or (during iteration) the stream broke off.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        with self._request("GET", path, None, idle_timeout, headers) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise UnexpectedServer(
                    f"{self.url}{path} does not return a stream of events", "check the version of the daemon"
                )
            yield _parse_events(response)

    def _json(self, method: str, path: str, query: Mapping[str, object] | None, timeout: float | None) -> Any:
        headers = {"Accept": "application/json"}
        with self._request(method, path, query, timeout or self._timeout, headers) as response:
            return self._parsed(response)

    def _parsed(self, response: http.client.HTTPResponse) -> Any:
        try:
            return json.loads(response.read(_LARGEST_RESPONSE))
        except ValueError:
            raise UnexpectedServer(
                f"{self.url} is not a Service Manager daemon: the response is not JSON", "check --url"
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
            raise Unreachable(
                f"{self.url} does not answer within {timeout or 0:.0f} s", _START_REMEDY
            ) from error
        except OSError as error:
            raise Unreachable(f"no daemon answers at {self.url}: {_reason(error)}", _START_REMEDY) from error
        except http.client.HTTPException as error:
            raise UnexpectedServer(
                f"{self.url} is not a Service Manager daemon: {type(error).__name__}",
                "check --url, in particular http:// or https://",
            ) from error
        finally:
            connection.close()

    def _connections(
        self, timeout: float | None
    ) -> Generator[http.client.HTTPConnection, ConnectionRefusedError | Refused, None]:
        """Yield a connection per attempt.

        The caller sends the error of a failed attempt; it is raised when there is no further attempt.
        """
        began = time.monotonic()
        first = True
        while True:
            error = yield self._connection(timeout)
            refused = isinstance(error, Refused)
            left = began + (self._starting_timeout if refused else self._absent_timeout) - time.monotonic()
            if left <= 0 or (isinstance(error, Refused) and not error.is_starting):
                raise error
            if first:
                self._on_wait()
                first = False
            pause = _seconds(error.retry_after) if isinstance(error, Refused) else _SHORTEST_PAUSE
            time.sleep(min(pause, left))

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        host = self._parts.hostname or "127.0.0.1"
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, self._parts.port, timeout=timeout)
        return http.client.HTTPConnection(host, self._parts.port, timeout=timeout)

    def _target(self, path: str, query: Mapping[str, object] | None) -> str:
        parameters = {
            name: _text(value) for name, value in (query or {}).items() if value not in (None, False)
        }
        return self._parts.path + path + (f"?{urlencode(parameters)}" if parameters else "")

    def _refusal(self, response: http.client.HTTPResponse, path: str) -> ClientError:
        try:
            value = json.loads(response.read(_LARGEST_RESPONSE))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return UnexpectedServer(
                f"{self.url}{path} returns {response.status} {response.reason}", "check --url"
            )
        status = response.status
        detail = value.get("detail")
        message = detail if isinstance(detail, str) and detail else str(value.get("title") or response.reason)
        remedy = str(value.get("remedy") or value.get("hint") or "")
        if value.get("reason") in {"missing_key", "invalid_key"} or (not remedy and status in {401, 403}):
            # The daemon's remedy addresses HTTP clients.
            remedy = "give the API key with --api-key-file FILE or in SERVICE_MANAGER_API_KEY"
        return Refused(status, message, remedy, value, response.headers.get("Retry-After", ""))


_START_REMEDY = (
    "start it with `service-manager run` (installed: `systemctl start service-manager`), "
    "or give its address with --url"
)


def _seconds(text: str) -> float:
    """Return the pause of a Retry-After header in seconds, within limits; 1 if it is a date."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, float(text))) if text.isdecimal() else 1.0


def quote_path(name: str) -> str:
    """Quote a name for use as one path segment."""
    return quote(name, safe="")


def _text(value: object) -> str:
    return "true" if value is True else str(value)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    return (error.strerror or str(error) or type(error).__name__).lower()


def _split_lines(response: http.client.HTTPResponse) -> Iterator[str]:
    # `for line in response` would not detect a response that broke off.
    rest = b""
    while chunk := response.read1(2**16):
        *complete, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in complete)
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
                # A comment shows that the daemon runs. Yield, so that the consumer can check whether to stop.
                yield Event("", None, identity)
            continue
        if data:
            try:
                yield Event(name or "message", json.loads("\n".join(data)), identity)
            except ValueError:
                raise UnexpectedServer("the stream of events contains an event that is not JSON") from None
        name, data = "", []
