"""Load the desired-state directory: one consistent, valid state, or all mistakes.

A load waits while git works, while a file is open for writing, and while files change. Compose needs 0.2 s to
resolve the files, so it runs only if one of its inputs changed; reading an edit of ``groups.yaml`` costs
milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.desired_state.assemble import LoadedState, assemble, revision_of, sort_mistakes
from reconciler.desired_state.git_busy import GitActivity
from reconciler.desired_state.late_writes import LateWrites
from reconciler.desired_state.scan import Scan, Scanner
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.desired_state.stable_reader import FileBusy
from reconciler.errors import InvalidDesiredState, NotReadableNow, ServiceManagerError
from reconciler.host.untrusted import is_transient
from reconciler.model.desired import Desired
from reconciler.model.resolved_compose import Resolved

log = logging.getLogger(__name__)

Resolver = Callable[..., Awaitable[Resolved]]
"""Resolves Compose files (all profiles), given their project directory and project name; with ``remote=True``
Compose may fetch included files."""

Sleep = Callable[[float], Awaitable[None]]

_PAUSE = 0.02
"""Seconds between two attempts."""

_OPEN_FILE_TIMEOUT = 1.0
"""Seconds to wait for a file that is open for writing."""

_CHANGING_TIMEOUT = 5.0
"""Seconds to wait for files that keep changing."""

_UNSTEADY_ATTEMPTS = 20
"""Attempts, with the Compose files resolved, after which a groups.yaml that keeps changing is taken as read.

Each read is of a whole file. Only what Compose reads must hold still, since Compose reads it a second time.
"""

_TRANSIENT_TIMEOUT = 0.3
"""Seconds to retry after a temporary error before it is reported."""

_MAX_CACHED = 4
_OPEN = "another program still has it open for writing; it is read when closed"
_CHANGING = "the files keep changing while they are read"


class _GitBusy(Exception):
    """A git operation runs in the directory. ``GitActivity`` limits the wait."""


class _FilesChanged(Exception):
    """A file changed during the load; ``groups_only``: none but groups.yaml."""

    def __init__(self, *, groups_only: bool) -> None:
        super().__init__()
        self.groups_only = groups_only


class Loader:
    """Loads one directory; one load at a time.

    ``environment`` is what the resolver gives to Compose, for names of files that have variables in them.
    ``inputs_changed`` is called when ``inputs`` has other files.
    """

    def __init__(
        self,
        directory: Path,
        resolve: Resolver,
        late_writes: LateWrites,
        *,
        extra_compose: Sequence[Path],
        environment: Mapping[str, str],
        inputs_changed: Callable[[], None],
        sleep: Sleep,
        now: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._resolve = resolve
        self._late_writes = late_writes
        self._inputs_changed = inputs_changed
        self._sleep = sleep
        self._now = now
        self._git = GitActivity(directory, now=now)
        self._scanner = Scanner(directory, extra_compose, environment)
        self._resolutions: dict[str, Resolved] = {}
        self._last: tuple[tuple[str, str, tuple[str, ...]], LoadedState] | None = None
        self._unexpected = ""
        self.inputs: frozenset[Path] = frozenset({directory / STACK, directory / GROUPS})

    async def load(self) -> LoadedState:
        """Return the state of the directory.

        Raises:
            InvalidDesiredState: with every mistake; also for a file that is open for writing, and for an
                unexpected error.
            NotReadableNow: a file can't be read for a temporary reason.
            EngineError: Compose can't be run.
        """
        started = self._now()
        busy_since: float | None = None
        unsteady = 0
        while True:
            busy, busy_since = busy_since, None
            try:
                loaded = await self._attempt(accept_unsteady=unsteady >= _UNSTEADY_ATTEMPTS)
            except _GitBusy:
                started = self._now()
            except FileBusy as error:
                # Counted from the first of these attempts: a file that is written often is free in between.
                busy_since = self._now() if busy is None else busy
                if self._now() - busy_since > _OPEN_FILE_TIMEOUT:
                    raise self._scanner.invalid(error.path, _OPEN) from None
            except _FilesChanged as error:
                unsteady = unsteady + 1 if error.groups_only else 0
                if self._now() - started > _CHANGING_TIMEOUT and not unsteady:
                    raise self._scanner.invalid(self._directory, _CHANGING) from None
            except NotReadableNow:
                if self._now() - started > _TRANSIENT_TIMEOUT:
                    raise
            except ServiceManagerError:
                raise
            except Exception as error:
                raise self._from_unexpected(error) from error
            else:
                self._unexpected = ""
                return loaded
            await self._sleep(_PAUSE)

    def expect(self, loaded: LoadedState) -> None:
        """Announce a write of the files: the next load returns ``loaded`` if the files have its content."""
        if self._last is not None:
            key, _, notes = self._last[0]
            self._last = ((key, loaded.revision, notes), loaded)

    async def _attempt(self, *, accept_unsteady: bool) -> LoadedState:
        scan, steady = await asyncio.to_thread(self._scan)
        self._set_inputs(scan)
        cached = scan.key in self._resolutions
        resolved = await self._resolved(scan)
        if not cached:
            # Compose took a while; files may have changed.
            steady = await asyncio.to_thread(self._is_steady)
        if not steady:
            groups_only = False
            if isinstance(resolved, Resolved):
                groups_only = await asyncio.to_thread(self._is_steady, self._directory / GROUPS)
                if groups_only:
                    self._keep(scan, resolved)
            if not (groups_only and accept_unsteady):
                raise _FilesChanged(groups_only=groups_only)
        if cached:
            return self._build(scan, resolved)
        # A new model may have megabytes.
        return await asyncio.to_thread(self._build, scan, resolved)

    def _scan(self) -> tuple[Scan, bool]:
        """Scan the files; return also whether nothing changed during the scan.

        One call in a thread, because on a busy machine each switch of threads costs milliseconds.
        """
        if self._git.current_operation() is not None:
            raise _GitBusy
        with contextlib.suppress(OSError):
            self._late_writes.recover()
        return self._scanner.scan(), self._is_steady()

    def _is_steady(self, but: Path | None = None) -> bool:
        return self._git.current_operation() is None and not self._scanner.has_changed(but)

    def _set_inputs(self, scan: Scan) -> None:
        inputs = frozenset({self._directory / STACK, self._directory / GROUPS, *scan.inputs})
        if inputs != self.inputs:
            self.inputs = inputs
            self._inputs_changed()

    async def _resolved(self, scan: Scan) -> Resolved | InvalidDesiredState | None:
        # Failures are not cached: the cause may be a file that the scan for inputs did not find.
        if not scan.project or not scan.compose or scan.mistakes:
            return None
        cached = self._resolutions.get(scan.key)
        if cached:
            return cached
        try:
            return await self._resolve(
                scan.compose,
                scan.compose[0].parent,
                scan.project,
                **({"remote": True} if scan.remote else {}),
            )
        except InvalidDesiredState as error:
            return InvalidDesiredState(self._scanner.relative_paths(error.mistakes))

    def _build(self, scan: Scan, resolved: Resolved | InvalidDesiredState | None) -> LoadedState:
        mistakes = (*scan.parsed.mistakes, *scan.mistakes)
        if not isinstance(resolved, Resolved):
            raise InvalidDesiredState(sort_mistakes([*mistakes, *(resolved.mistakes if resolved else ())]))
        self._keep(scan, resolved)
        notes = (*scan.warnings, *self._git.stale_signs())
        revision = revision_of(scan.sources)
        identity = (scan.key, revision, notes)
        if self._last is None or self._last[0] != identity:
            parsed = scan.parsed._replace(mistakes=mistakes)
            stack, groups = assemble(parsed, resolved, str(scan.compose[0].parent), notes)
            stack = replace(stack, files=tuple(map(str, scan.compose)))
            desired = Desired(groups=groups, revision=revision)
            self._last = (identity, LoadedState(stack, desired, revision, scan.sources, resolved))
        return self._last[1]

    def _keep(self, scan: Scan, resolved: Resolved) -> None:
        self._resolutions = dict([*self._resolutions.items(), (scan.key, resolved)][-_MAX_CACHED:])

    def _from_unexpected(self, error: Exception) -> ServiceManagerError:
        if isinstance(error, OSError) and is_transient(error):
            return NotReadableNow(f"{self._directory} can't be read at the moment: {error}")
        message = f"could not be read: {type(error).__name__}: {error}"[:500]
        if message != self._unexpected:
            # A bug of this program: log the traceback, but once, not at every load.
            log.error("reading the desired state failed unexpectedly", exc_info=error)
        self._unexpected = message
        return self._scanner.invalid(self._directory, message)
