"""Notifies systemd (``sd_notify``): readiness, status, watchdog, reload, stop.

The loop's heartbeat feeds the watchdog, a separate task sends the status. Without a notify socket all calls
do nothing. The protocol is a line of text in a datagram, so it needs no library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, MutableMapping

from reconciler.controller.snapshot import Snapshot, SnapshotPublisher

log = logging.getLogger(__name__)

_BEATS = 3
"""Heartbeats of an idle loop per watchdog interval: losing one message is harmless."""
_LONGEST = 500
"""Maximum length of a status line in characters."""


class Notifier:
    """Sends to the service manager's socket; does nothing if ``address`` is empty.

    ``watchdog`` is the interval in seconds within which ``alive`` must be called; None: no watchdog.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._socket: socket.socket | None = None
        self._last_status = ""
        self.watchdog = watchdog
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # If the socket is full or gone, drop the message instead of blocking the loop.
            self._socket.setblocking(False)
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Notifier:
        """Create from systemd's variables and remove them, so that no child process sends notifications."""
        surroundings = os.environ if environ is None else environ
        address = surroundings.pop("NOTIFY_SOCKET", "")
        interval = surroundings.pop("WATCHDOG_USEC", "")
        process = surroundings.pop("WATCHDOG_PID", "")
        meant = not process or process == str(os.getpid())
        watchdog = int(interval) / 1e6 if address and meant and interval.isdecimal() else 0.0
        return cls(address, watchdog or None)

    @property
    def has_socket(self) -> bool:
        """Whether there is a notify socket."""
        return self._socket is not None

    @property
    def beat(self) -> float:
        """Seconds between heartbeats of an idle loop; infinite without a watchdog."""
        return self.watchdog / _BEATS if self.watchdog else float("inf")

    def ready(self) -> None:
        """Report the end of the start or of a reload."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the text in ``systemctl status``; sent only when it changes."""
        line = " ".join(text.split())[:_LONGEST]
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def alive(self) -> None:
        """Feed the watchdog. Only the watched component may call this."""
        if self.watchdog:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report the start of a reload; ``ready`` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report the start of the stop."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("the service manager does not listen", extra={"error": str(error)})


class ReadinessNotifier:
    """Decides when to send which notification.

    The daemon is ready when it serves requests, has read the files once, and has finished a pass. A pass that
    can't reach the engine counts, since the daemon is useful without it. ``done`` returns True after a pass,
    or if no pass is due: the files are invalid, and there is no earlier valid state.
    """

    def __init__(self, notifier: Notifier, snapshots: SnapshotPublisher, *, done: Callable[[], bool]) -> None:
        self._notifier = notifier
        self._snapshots = snapshots
        self._done = done
        self._has_beaten = False
        self._stopping = False
        self._read = asyncio.Event()
        self._serving = asyncio.Event()
        self._first_pass = asyncio.Event()
        self._turn = asyncio.Lock()

    def on_heartbeat(self) -> None:
        """Record a heartbeat of the loop (``LoopHooks.on_heartbeat``)."""
        self._notifier.alive()
        self._has_beaten = True
        self._check_first_pass()

    def files_read(self) -> None:
        """Record that the files were read for the first time, valid or not."""
        self._read.set()
        self._check_first_pass()

    def _check_first_pass(self) -> None:
        if self._read.is_set() and self._has_beaten and self._done():
            self._first_pass.set()

    def serving(self) -> None:
        """Record that requests are served from now on."""
        self._serving.set()

    async def run(self) -> None:
        """Report readiness, then every status change. Runs until cancelled."""
        self._notifier.status("starting: reads the desired state")
        await self._read.wait()
        self._notifier.status("starting: looks at the engine")
        await self._first_pass.wait()
        await self._serving.wait()
        self._notifier.status(status_line(self._snapshots.current))
        if not self._stopping:
            self._notifier.ready()
        while True:
            snapshot = await self._snapshots.newer_than(self._snapshots.current.serial)
            if not self._stopping:
                self._notifier.status(status_line(snapshot))

    @contextlib.asynccontextmanager
    async def reload(self) -> AsyncIterator[None]:
        """Wrap a requested reload in notifications; one at a time."""
        async with self._turn:
            if not self._stopping:
                self._notifier.reloading()
            try:
                yield
            finally:
                # A reload during the start must not report readiness early.
                if self._first_pass.is_set() and not self._stopping:
                    self._notifier.ready()

    def stopping(self) -> None:
        """Report the stop; no notification follows."""
        self._stopping = True
        self._notifier.status("ending; the containers stay as they are")
        self._notifier.stopping()


def status_line(snapshot: Snapshot) -> str:
    """Summarise the stack's progress in one line for ``systemctl status``."""
    services = [s for group in snapshot.groups.values() if group.desired for s in group.services]
    ready = sum(1 for s in services if s.ready or s.done)
    parts = []
    if snapshot.errors:
        parts.append(f"the desired state is not valid: {snapshot.errors[0]}")
    if not snapshot.generation:
        return "; ".join(parts) or "waits for a desired state"
    if not snapshot.engine.reachable:
        parts.append(f"the engine can't be reached: {snapshot.engine.error}")
    parts.append(f"{_state(snapshot)}, {ready} of {len(services)} services ready, {_groups(snapshot)}")
    return "; ".join(parts)


def _state(snapshot: Snapshot) -> str:
    if snapshot.converged and snapshot.generation == snapshot.observed_generation:
        return f"generation {snapshot.generation} converged"
    if snapshot.progress.state == "degraded":
        return f"generation {snapshot.generation} degraded"
    progress = snapshot.progress
    if progress.state == "progressing" and progress.total:
        return f"generation {snapshot.generation} in progress, {progress.done} of {progress.total} steps"
    return f"generation {snapshot.generation} in progress"


def _groups(snapshot: Snapshot) -> str:
    on = sum(1 for group in snapshot.groups.values() if group.desired)
    return f"{on} of {len(snapshot.groups)} groups on"
