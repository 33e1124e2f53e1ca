"""What systemd is told of the daemon: ready, how far, alive, reloading, stopping (``sd_notify``).

``daemon`` puts it together: the loop's hook feeds the watchdog, a task of its own tells the status. Where
no service manager listens, all of it is silent. The protocol is a line of text in a datagram, so it needs
no library.
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
"""How often in one watchdog interval an idle loop says that it turns: one lost message ends nothing."""
_LONGEST = 500
"""Letters of a status line; more is for logs."""


class Notifier:
    """Sends to the service manager's socket; to nobody where ``address`` is empty.

    ``watchdog`` is the interval in seconds within which ``alive`` must be said, None where nobody asks.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._socket: socket.socket | None = None
        self._told = ""
        self.watchdog = watchdog
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # Full for the moment, or gone: a message less, never a loop that waits for it.
            self._socket.setblocking(False)
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Notifier:
        """As systemd's variables say. They are taken away: no child of ours speaks in our name."""
        surroundings = os.environ if environ is None else environ
        address = surroundings.pop("NOTIFY_SOCKET", "")
        interval = surroundings.pop("WATCHDOG_USEC", "")
        process = surroundings.pop("WATCHDOG_PID", "")
        meant = not process or process == str(os.getpid())
        watchdog = int(interval) / 1e6 if address and meant and interval.isdecimal() else 0.0
        return cls(address, watchdog or None)

    @property
    def listened_to(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    @property
    def beat(self) -> float:
        """Seconds after which an idle loop should turn all the same; infinite without a watchdog."""
        return self.watchdog / _BEATS if self.watchdog else float("inf")

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows; said again only when it is something else."""
        line = " ".join(text.split())[:_LONGEST]
        if line != self._told:
            self._told = line
            self._send(f"STATUS={line}")

    def alive(self) -> None:
        """Feed the watchdog. To be called by what it watches, and by nothing else."""
        if self.watchdog:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Nothing is told from here on."""
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
    """Says at the right moments what ``Notifier`` can say.

    Ready is the daemon when it answers requests, has read the files once, and a pass over what they say is
    done: also one that found no engine, since without it the daemon is of use as well. Files that are not
    valid leave nothing to pass over, unless an earlier state was good: ``done`` tells whether there was a
    pass, or nothing to pass over.
    """

    def __init__(self, notifier: Notifier, snapshots: SnapshotPublisher, *, done: Callable[[], bool]) -> None:
        self._notifier = notifier
        self._snapshots = snapshots
        self._done = done
        self._turned = False
        self._stopping = False
        self._read = asyncio.Event()
        self._serving = asyncio.Event()
        self._looked = asyncio.Event()
        self._turn = asyncio.Lock()

    def turned(self) -> None:
        """The loop turned; ``Hooks.turned``."""
        self._notifier.alive()
        self._turned = True
        self._look()

    def files_read(self) -> None:
        """The files were read for the first time, valid or not."""
        self._read.set()
        self._look()

    def _look(self) -> None:
        if self._read.is_set() and self._turned and self._done():
            self._looked.set()

    def serving(self) -> None:
        """Requests are answered from now on."""
        self._serving.set()

    async def run(self) -> None:
        """Tell that the daemon is ready, and then for ever how far it is. Ends only when cancelled."""
        self._notifier.status("starting: reads the desired state")
        await self._read.wait()
        self._notifier.status("starting: looks at the engine")
        await self._looked.wait()
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
        """Around a reload that somebody asked for; one at a time."""
        async with self._turn:
            if not self._stopping:
                self._notifier.reloading()
            try:
                yield
            finally:
                # Not ready before its time: a reload during the start ends with the start.
                if self._looked.is_set() and not self._stopping:
                    self._notifier.ready()

    def stopping(self) -> None:
        """The end begins; the last thing that is told."""
        self._stopping = True
        self._notifier.status("ending; the containers stay as they are")
        self._notifier.stopping()


def status_line(snapshot: Snapshot) -> str:
    """How far the stack is, in one line for ``systemctl status``."""
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
