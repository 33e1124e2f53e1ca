"""A proxy on a unix socket before the engine that records each request and its time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

_REQUEST = re.compile(rb"^(GET|POST|PUT|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")


class Call(NamedTuple):
    """``at`` on the monotonic clock."""

    at: float
    method: str
    path: str


class RecordingProxy:
    """Runs in a thread with its own event loop. A request starts with a chunk: no client pipelines."""

    def __init__(self, engine_socket: Path, socket: Path) -> None:
        self._engine = str(engine_socket)
        self._socket = str(socket)
        self.calls: list[Call] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the proxy does not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(5)

    @property
    def host(self) -> str:
        """The value of DOCKER_HOST."""
        return f"unix://{self._socket}"

    def since(self, at: float) -> list[Call]:
        """Requests after this time."""
        return [call for call in list(self.calls) if call.at >= at]

    def _serve(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_unix_server(self._connected, self._socket)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.05)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_engine = await asyncio.open_unix_connection(self._engine)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                self._pass_on(reader, to_engine[1], note=True),
                self._pass_on(to_engine[0], writer, note=False),
            )
        finally:
            writer.close()
            to_engine[1].close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if note and (found := _REQUEST.match(data)):
                    self.calls.append(Call(time.monotonic(), found[1].decode(), found[2].decode()))
                writer.write(data)
                await writer.drain()
            # Half closed: a Compose that finished sending still reads the response.
            if writer.can_write_eof():
                writer.write_eof()
