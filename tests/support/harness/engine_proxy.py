"""A proxy on a unix socket before the engine: records every request with its sender, injects faults.

The sender's process id (from the kernel) lets a test kill it at its n-th request, the same moment in every
run, unlike a sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_REQUEST = re.compile(rb"^(GET|POST|PUT|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")
_AGENT = re.compile(rb"\r\nUser-Agent: ([^\r]*)\r\n", re.IGNORECASE)
_VERSION = re.compile(r"^/v\d\.\d+")
_CREDENTIALS = struct.Struct("3i")


class Call(NamedTuple):
    """``at`` on the monotonic clock; ``path`` without API version and ``query``; ``pid`` of the client."""

    at: float
    method: str
    path: str
    agent: str
    pid: int
    query: str = ""

    @property
    def by_compose(self) -> bool:
        """Whether the client is Docker Compose."""
        return "compose" in self.agent.lower() or "docker-client" in self.agent.lower()

    @property
    def changes(self) -> bool:
        """Whether the request changes a container, a network or a volume."""
        return self.method != "GET" and re.match(r"/(containers|networks|volumes)/", self.path) is not None


Hook = Callable[[Call], str | None]
"""Called for each request; returns the fault to inject, None: forward the request unchanged.

``lose``: forward the request, and close the connection instead of responding. ``hold``: forward it when
``release`` is called. ``late``: forward it, and respond when ``release`` is called. The others do not forward
it. ``refuse``: respond with 500. ``lie``: respond with success. ``cut``: close the connection.
"""


class AtCall:
    """A hook that runs an action at the nth matching call only; ``met``: whether that call arrived."""

    def __init__(self, nth: int, meant: Callable[[Call], bool], deed: Callable[[Call], str | None]) -> None:
        self._left = nth
        self._meant = meant
        self._deed = deed

    def __call__(self, call: Call) -> str | None:
        """See ``Hook``."""
        if self.met or not self._meant(call):
            return None
        self._left -= 1
        return self._deed(call) if self.met else None

    @property
    def met(self) -> bool:
        """Whether the call arrived."""
        return self._left == 0


_ANSWERS = {
    "refuse": (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 38\r\n"
        b'Connection: close\r\n\r\n{"message":"something broke in here"}\n'
    ),
    "lie": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
}


class EngineProxy:
    """Runs in a thread with its own event loop. A request starts with a chunk: no client pipelines."""

    def __init__(self, engine_socket: Path, path: Path) -> None:
        self.path = path
        self.hook: Hook | None = None
        self.calls: list[Call] = []
        self._engine = str(engine_socket)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._mute = False
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> EngineProxy:
        self._thread.start()
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def show(self) -> None:
        """Listen at the address of the engine."""
        if self._listener is None:
            self._do(self._show())

    def hide(self) -> None:
        """Remove the socket and close every connection. The engine is not affected."""
        self._do(self._hide())

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Closed for a while."""
        self.hide()
        try:
            yield
        finally:
            self.show()

    @contextlib.contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        """Call ``hook`` for each request for a while."""
        self.arm()
        self.hook = hook
        try:
            yield
        finally:
            self.hook = None
            self.release()

    def arm(self) -> None:
        """Make ``hold`` and ``late`` hold requests again; after a release they forward everything."""
        self._loop.call_soon_threadsafe(self._released.clear)

    def release(self) -> None:
        """Forward held requests."""
        self._loop.call_soon_threadsafe(self._released.set)

    @contextlib.contextmanager
    def mute(self) -> Iterator[None]:
        """Keep event streams open and silent; events of that time are lost."""
        self._mute = True
        try:
            yield
        finally:
            self._mute = False

    def mark(self) -> int:
        """A position in the record of calls."""
        return len(self.calls)

    def changes_since(self, mark: int) -> list[Call]:
        """Requests since that position that change something."""
        return [call for call in self.calls[mark:] if call.changes]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _show(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._accepting = self._loop.create_task(self._accept(self._listener))

    async def _hide(self) -> None:
        self.path.unlink(missing_ok=True)
        ending = list(self._tasks)
        if self._accepting is not None:
            ending.append(self._accepting)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        self._accepting = self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            task = self._loop.create_task(self._serve(client))
            self._tasks.add(task)
            # Also if the task is cancelled before it started.
            task.add_done_callback(lambda task, client=client: self._over(task, client))  # type: ignore[misc]

    def _over(self, task: asyncio.Task[None], client: socket.socket) -> None:
        self._tasks.discard(task)
        client.close()

    async def _serve(self, client: socket.socket) -> None:
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        line = _Line(self, _CREDENTIALS.unpack(credentials)[0])
        engine = socket.socket(socket.AF_UNIX)
        engine.setblocking(False)
        try:
            await self._loop.sock_connect(engine, self._engine)
            async with asyncio.TaskGroup() as both:
                both.create_task(line.there(client, engine))
                both.create_task(line.back(engine, client))
        except* OSError:
            pass
        finally:
            engine.close()

    async def note(self, call: Call) -> str | None:
        """The fate of the request, after it is no longer held."""
        self.calls.append(call)
        hook = self.hook
        verdict = hook(call) if hook else None
        if verdict == "hold":
            await self.released()
        return verdict

    async def released(self) -> None:
        """Wait for ``release``."""
        await self._released.wait()

    @property
    def is_mute(self) -> bool:
        return self._mute


class _Cut(OSError):
    pass


class _Line:
    """One connection, in both directions."""

    def __init__(self, proxy: EngineProxy, pid: int) -> None:
        self._proxy = proxy
        self._pid = pid
        self._is_stream = False
        self._lose = self._late = False

    async def there(self, client: socket.socket, engine: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(client, 65536):
            if found := _REQUEST.match(data):
                agent = _AGENT.search(data)
                target, _, query = found[2].decode().partition("?")
                path, asker = _VERSION.sub("", target), agent[1].decode() if agent else ""
                self._is_stream = path == "/events"
                call = Call(time.monotonic(), found[1].decode(), path, asker, self._pid, query)
                verdict = await self._proxy.note(call)
                self._lose, self._late = verdict == "lose", verdict == "late"
                if verdict in _ANSWERS:
                    await loop.sock_sendall(client, _ANSWERS[verdict])
                if verdict in {*_ANSWERS, "cut"}:
                    client.shutdown(socket.SHUT_RDWR)
                    raise _Cut
            await loop.sock_sendall(engine, data)
        # Half closed: a Compose that finished sending still reads the response.
        engine.shutdown(socket.SHUT_WR)

    async def back(self, engine: socket.socket, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(engine, 65536):
            if self._lose:
                client.shutdown(socket.SHUT_RDWR)
                raise _Cut
            if self._late:
                await self._proxy.released()
            if not (self._is_stream and self._proxy.is_mute):
                await loop.sock_sendall(client, data)
        client.shutdown(socket.SHUT_WR)
