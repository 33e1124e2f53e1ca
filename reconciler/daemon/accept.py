"""Accepts connections; running out of descriptors costs a pause and one log line, not the event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

_BACKLOG = 1024
"""Connections that the kernel holds until they are accepted."""

_PER_TURN = 64
"""Connections accepted per iteration of the event loop; the limits apply before the next iteration."""

_PAUSE = 1.0
"""Seconds without accepting after descriptors or memory ran out."""

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts from one listening socket; implements the part of ``asyncio.Server`` that uvicorn uses.

    ``protocol`` creates the protocol of a connection; ``note`` logs, rate-limited, why accepting pauses.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        note: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Listen and accept."""
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._resume()

    def close(self) -> None:
        """Stop accepting; open connections stay."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait for connections that are being set up."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _resume(self) -> None:
        self._pause = None
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                connection, _address = self._listener.accept()
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._rest(error)
                # Any other error concerns one closed connection; the next iteration accepts the others.
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _rest(self, error: OSError) -> None:
        self._note(f"no connection can be accepted for a second: {error.strerror}")
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE, self._resume)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()
        except Exception:
            connection.close()
            log.exception("a connection could not be set up")
