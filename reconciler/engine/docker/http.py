"""HTTP client for frequent reads and for streams: observation, events, logs, probes.

Uses asyncio instead of the SDK, for two reasons. A read costs a third of the SDK's CPU time, and no thread.
Closing the socket cancels a hanging read at once, while a thread in a blocking call can't be stopped. Neither
matters for commands, so they go through the SDK.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from reconciler.engine.docker.address import Address
from reconciler.errors import EngineUnavailable
from reconciler.host.untrusted import MALFORMED

_LONGEST_LINE = 2**20
_IDLE_KEPT = 4
"""Connections kept open between observations; more are opened when many containers changed at once."""
_NEWEST_API = (1, 44)
"""The newest API that this adapter was written for; engines support older ones for years."""
_OLDEST_API = (1, 40)
_CONTENT_TYPES = {"POST": "application/json", "PUT": "application/x-tar"}


class Refused(Exception):
    """The engine responded with an HTTP error. ``status`` is its code, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Stale(Exception):
    """The engine had closed a kept connection before the request reached it."""


class HttpResponse:
    """One response whose body has not been read yet."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request after the body was read."""
        ends = "content-length" in self.headers or self._chunked or self.status in {204, 304}
        return ends and self.headers.get("connection", "").lower() != "close"

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    async def read(self) -> bytes:
        """Read the whole body."""
        if self.status in {204, 304}:
            return b""
        if "content-length" in self.headers:
            return await self._reader.readexactly(int(self.headers["content-length"]))
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in pieces as they arrive."""
        if self._chunked:
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
        else:
            while data := await self._reader.read(65536):
                yield data


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.used = False

    @property
    def dead(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def ask(self, method: str, path: str, body: bytes | None, more: Mapping[str, str]) -> HttpResponse:
        head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nUser-Agent: service-manager\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in more.items())
        if method in _CONTENT_TYPES:
            kind, content = _CONTENT_TYPES[method], body or b""
            head += f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        try:
            self._writer.write(head.encode("ascii") + b"\r\n" + (body or b""))
            await self._writer.drain()
            answer = await self._reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if self.used and not getattr(error, "partial", b""):
                raise _Stale from error
            raise
        self.used = True
        status, *lines = answer.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return HttpResponse(int(status.split()[1]), {k.lower(): v.strip() for k, _, v in pairs}, self._reader)

    def close(self) -> None:
        # Abort: nothing is left to send, and a hanging engine must not delay closing.
        self._writer.transport.abort()


class DockerHttp:
    """Sends requests to one engine, each on its own connection and with its own deadline.

    ``patience`` is the number of seconds for a response if the caller sets no other.
    """

    def __init__(self, address: Address, patience: float = 10.0) -> None:
        self.address = address
        self.api = ""
        self._patience = patience
        self._idle: list[_Connection] = []
        self._streams: set[_Connection] = set()
        self._closed = False

    async def get(self, path: str, *, within: float | None = None, **query: object) -> Any:
        """Return the JSON of a response; repeats the request on a new connection if the kept one was closed.

        Raises:
            EngineUnavailable: no response within ``within`` seconds.
            Refused: the response is an error.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(_Stale), stop=stop_after_attempt(_IDLE_KEPT + 1), reraise=True
        ):
            with attempt:
                target = await self._target(path, query)
                return await self._ask("GET", target, None, self._patience if within is None else within)
        raise AssertionError

    async def post(self, path: str, body: Mapping[str, object], *, within: float | None = None) -> Any:
        """Like ``get``, for POST requests. Never repeated: the engine may have received it."""
        target = await self._target(path, {})
        content = json.dumps(body).encode()
        try:
            return await self._ask("POST", target, content, self._patience if within is None else within)
        except _Stale as error:
            raise EngineUnavailable("the engine closed the connection") from error

    async def put(self, path: str, archive: bytes, /, **query: object) -> None:
        """Upload an archive; errors as for ``get``."""
        try:
            await self._ask("PUT", await self._target(path, query), archive, self._patience)
        except _Stale as error:
            raise EngineUnavailable("the engine closed the connection") from error

    async def delete(self, path: str, **query: object) -> None:
        """Send a DELETE request; errors as for ``get``."""
        try:
            await self._ask("DELETE", await self._target(path, query), None, self._patience)
        except _Stale as error:
            raise EngineUnavailable("the engine closed the connection") from error

    async def _ask(self, method: str, target: str, body: bytes | None, within: float) -> Any:
        with self._transport_errors():
            async with asyncio.timeout(within):
                connection = await self._connection()
                try:
                    reply = await connection.ask(method, target, body, {})
                    content = await reply.read()
                except BaseException:
                    connection.close()
                    raise
                self._keep(connection, reply)
        if reply.status >= 400:
            raise self._refused(reply.status, content)
        return self._parsed(content)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        within: float | None = None,
        **query: object,
    ) -> AsyncIterator[HttpResponse]:
        """Open a streaming response; its head must arrive within ``within`` seconds, its body has no
        deadline.

        Leaving the block closes the connection in any state.
        """
        target = await self._target(path, query)
        with self._transport_errors():
            connection = None
            try:
                async with asyncio.timeout(self._patience if within is None else within):
                    connection = await self._connect()
                    self._streams.add(connection)
                    content = None if body is None else json.dumps(body).encode()
                    reply = await connection.ask(method, target, content, headers or {})
                    if reply.status >= 400:
                        raise self._refused(reply.status, await reply.read())
                yield reply
            finally:
                if connection is not None:
                    self._streams.discard(connection)
                    connection.close()

    async def negotiate(self) -> str:
        """Return the API version to use; requests it again if the engine may have been replaced.

        Raises:
            EngineUnavailable: no response, or the engine is too old.
        """
        if not self.api:
            try:
                self.api = _common_api(await self._version())
            except MALFORMED as error:
                message = f"the engine's version can't be read: {error}"
                raise EngineUnavailable(message, "engine_nonsense") from error
        return self.api

    async def _version(self) -> Any:
        for _ in range(_IDLE_KEPT + 1):
            # Repeated on another connection if the engine had closed the kept one.
            with suppress(_Stale):
                return await self._ask("GET", "/version", None, self._patience)
        raise EngineUnavailable("the engine closed the connection")

    async def close(self) -> None:
        """Close every connection; active streams end with an error."""
        self._closed = True
        for connection in (*self._idle, *self._streams):
            connection.close()
        self._idle.clear()
        # One iteration of the event loop, in which the transports close their sockets.
        await asyncio.sleep(0)

    async def _target(self, path: str, query: Mapping[str, object]) -> str:
        encoded = urlencode({key: _parameter(value) for key, value in query.items()})
        return f"/v{await self.negotiate()}{path}" + (f"?{encoded}" if encoded else "")

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.dead:
                return connection
            connection.close()
        return await self._connect()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the engine, on which the caller speaks HTTP and which it closes.

        Raises:
            EngineUnavailable: there is no connection.
        """
        with self._transport_errors():
            async with asyncio.timeout(self._patience):
                return await self._open()

    async def _connect(self) -> _Connection:
        return _Connection(*await self._open())

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._closed:
            raise EngineUnavailable("closed")
        if self.address.problem:
            raise EngineUnavailable(self.address.problem, "address_unusable")
        if self.address.socket:
            return await asyncio.open_unix_connection(self.address.socket, limit=_LONGEST_LINE)
        host, port = self.address.host
        return await asyncio.open_connection(host, port, limit=_LONGEST_LINE, ssl=_tls(self.address))

    def _keep(self, connection: _Connection, reply: HttpResponse) -> None:
        if reply.reusable and not self._closed and len(self._idle) < _IDLE_KEPT:
            self._idle.append(connection)
        else:
            connection.close()

    def _parsed(self, content: bytes) -> Any:
        try:
            return json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            self.api = ""
            raise EngineUnavailable(f"the engine's answer is not JSON: {error}", "engine_nonsense") from None

    def _refused(self, status: int, content: bytes) -> Refused:
        try:
            message = str(json.loads(content)["message"])
        except MALFORMED:
            message = content.decode(errors="replace").strip() or f"HTTP {status}"
        if status == 400 and "client version" in message:
            # The engine was replaced by one with other versions.
            self.api = ""
        return Refused(status, message)

    @contextmanager
    def _transport_errors(self) -> Iterator[None]:
        """Translate transport errors into ``EngineUnavailable``."""
        try:
            yield
        except TimeoutError as error:
            self.api = ""
            message = f"the engine at {self.address.url} does not answer"
            raise EngineUnavailable(message, "engine_silent") from error
        except (OSError, EOFError, asyncio.LimitOverrunError, *MALFORMED) as error:
            self.api = ""
            raise EngineUnavailable(_why(self.address, error)) from error


def _common_api(version: Mapping[str, Any]) -> str:
    newest = _numbers(version.get("ApiVersion"))
    oldest = _numbers(version.get("MinAPIVersion"))
    if newest < _OLDEST_API:
        message = f"the engine speaks API {version.get('ApiVersion')}; 1.40 (Docker 19.03) or later is needed"
        raise EngineUnavailable(message, "engine_too_old")
    return ".".join(str(number) for number in max(min(newest, _NEWEST_API), oldest))


def _numbers(version: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version or "0").split(".") if part.isdigit())


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else json.dumps(value)


def _tls(address: Address) -> ssl.SSLContext | None:
    folder = address.certificates
    if folder is None:
        return ssl.create_default_context() if address.url.startswith("https://") else None
    context = ssl.create_default_context(cafile=str(folder / "ca.pem") if address.verify else None)
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if (folder / "cert.pem").exists():
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def _why(address: Address, error: BaseException) -> str:
    place = address.socket or address.url
    if isinstance(error, FileNotFoundError):
        return f"no engine at {place}: is Docker running?"
    if isinstance(error, PermissionError):
        return f"no permission to use {place}: add this user to the group that owns it (`docker`)"
    if isinstance(error, ConnectionRefusedError):
        return f"the engine at {place} refuses the connection: is Docker running?"
    return f"the connection to the engine at {place} broke: {error or type(error).__name__}"
