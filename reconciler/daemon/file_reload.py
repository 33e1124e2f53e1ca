"""Reads the declared files at the start, after every change, and at every resync."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from reconciler.controller.loop import Loop
from reconciler.daemon.desired_state_lock import DesiredStateLock
from reconciler.daemon.sd_notify import ReadinessNotifier
from reconciler.desired_state.file_watch import ProblemListener, changes
from reconciler.desired_state.mounted_files import MountedFiles
from reconciler.desired_state.store import Store
from reconciler.errors import AlreadyRunning
from reconciler.generations.desired_state_files import DesiredStateFiles

log = logging.getLogger(__name__)

RETRY = 0.5
"""Seconds after which to retry files that could not be read for a temporary reason."""


class FileReload:
    """Reads the files whenever ``changed`` is set, and every ``resync`` seconds."""

    def __init__(
        self,
        store: Store,
        files: DesiredStateFiles,
        readiness: ReadinessNotifier,
        directory: DesiredStateLock,
        *,
        resync: float,
    ) -> None:
        self.changed = asyncio.Event()
        self._store = store
        self._files = files
        self._readiness = readiness
        self._directory = directory
        self._resync = resync
        self._first_read = asyncio.Event()

    async def run(self) -> None:
        """Read the files until cancelled."""
        try:
            await self._files.reload()
        finally:
            self._first_read.set()
        self._readiness.files_read()
        while True:
            # A read without an event costs a millisecond if nothing changed.
            pause = min(RETRY, self._resync) if self._files.delayed else self._resync
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self.changed.wait()
            self.changed.clear()
            self._lock_directory()
            await self._files.reload()

    async def run_after_first_read(self, loop: Loop) -> None:
        """Run the loop after the first read of the files, valid or not.

        The files may have changed while the daemon was down: a pass on the restored generation could start a
        group that they switch off. A read takes at most as long as Docker Compose may (30 s).
        """
        await self._first_read.wait()
        await loop.run()

    def _lock_directory(self) -> None:
        try:
            if self._directory.hold():
                self._store.recover_interrupted()
        except AlreadyRunning as error:
            log.critical("another daemon holds the directory", extra={"error": str(error)})
            raise SystemExit(1) from error
        except OSError as error:
            log.warning("the directory can't be held at the moment", extra={"error": str(error)})


async def watch_files(
    store: Store,
    mounts: MountedFiles,
    inputs_changed: threading.Event,
    *,
    changed: asyncio.Event,
    wake: Callable[[str], None],
    report: ProblemListener,
) -> None:
    """Set ``changed`` when an input of the store may have changed; ``wake`` the loop for a mounted file.

    One watch serves both, because each costs CPU while idle. ``inputs_changed`` is set when store or mounts
    have other files to watch.
    """

    def inputs() -> frozenset[Path]:
        return store.inputs() | mounts.files()

    async for found in changes(inputs, wake=inputs_changed, report=report):
        if found & store.inputs():
            changed.set()
        if found & mounts.files():
            wake("a mounted file")
