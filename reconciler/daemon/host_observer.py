"""Adds the state of this machine to each observation: mounted files, disk space, file watching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.desired_state.mounted_files import MountedFiles
from reconciler.host import disk
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack


class HostObserver:
    """The loop's ``add_host_state``. ``mounts`` None: containers do not see the files of this machine."""

    def __init__(
        self, mounts: MountedFiles | None, directories: Sequence[Path], watching: disk.WatchHealth
    ) -> None:
        self._mounts = mounts
        self._directories = directories
        self._watching = watching

    async def __call__(self, observed: ObservedState, stack: Stack) -> ObservedState:
        """Return the observation with the state of the machine; never raises."""
        if self._mounts is not None:
            observed = await self._mounts.observe_mounts(observed, stack)
        warnings = (*disk.disk_warnings(self._directories), *self._watching.warnings())
        return replace(observed, notes=(*observed.notes, *warnings)) if warnings else observed
