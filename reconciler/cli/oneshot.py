"""Loads desired state and observes the engine once, for commands that need no daemon.

These are ``plan``, ``validate``, ``doctor``, ``init`` and the git hook. Like ``daemon``, this module chooses
the engine; unlike it, it changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from reconciler.errors import EngineError, EngineUnavailable, Mistake, ServiceManagerError
from reconciler.host.compose_paths import current_directory
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.capabilities import Capability
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.ledger_updates import for_boot
from reconciler.options import ENGINES, INSTALLED_DESIRED
from reconciler.planning.project_rename import former_name, is_new_name

if TYPE_CHECKING:
    from reconciler.desired_state.store import LoadedState
    from reconciler.engine import Engine
    from reconciler.model.keyed_digest import DigestKey
    from reconciler.model.observed import ObservedState
    from reconciler.model.stack import Stack


_WARNING_TIMEOUT = 2.0
"""Seconds for an engine call that only adds a warning."""


class NoDirectory(ServiceManagerError):
    """The desired-state directory does not exist. ``remedy`` says what to do."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"there is no directory {directory}")
        self.remedy = "give its path with --desired-state, "
        if directory != INSTALLED_DESIRED and INSTALLED_DESIRED.is_dir():
            self.remedy += f"the installed one is {INSTALLED_DESIRED}"
        else:
            self.remedy += "or create one with `service-manager init COMPOSE_FILE`"


async def load(
    directory: Path,
    compose_files: Sequence[Path] = (),
    *,
    key: DigestKey | None = None,
    engine: str = ENGINES[0],
) -> LoadedState:
    """Load the desired state of a directory. ``key``: the daemon's, to compare with its ledger.

    ``engine`` is the kind of engine whose resolver reads the Compose files.

    Raises:
        NoDirectory: the directory does not exist.
        InvalidDesiredState: with every mistake; ``relative_to_cwd`` makes their paths usable.
        StepFailed: there is no Docker Compose.
    """
    from reconciler.desired_state.digest_key_file import keyed
    from reconciler.desired_state.store import Store
    from reconciler.engine import registry

    if not await asyncio.to_thread(directory.is_dir):
        raise NoDirectory(directory)
    resolve = registry.kind(engine).resolver(os.environ)
    store = Store(
        directory, keyed(resolve, key), extra_compose=compose_files, environment=resolve.environment
    )
    return await store.load()


def relative_to_cwd(mistake: Mistake, directory: Path) -> Mistake:
    """Return the mistake with its path relative to the current directory, so that an editor can open it."""
    path = directory / mistake.path
    with contextlib.suppress(ValueError):
        path = path.relative_to(current_directory())
    return mistake._replace(path=str(path))


def read_ledger(state_dir: Path, now: Clock) -> Ledger:
    """Read the daemon's ledger; empty if it is absent or unreadable. Changes nothing."""
    from reconciler.controller.ledger_codec import decode_ledger
    from reconciler.controller.ledger_file import NAME, boot_id

    try:
        return for_boot(decode_ledger(read_regular(state_dir / NAME), now), boot_id())
    except (OSError, *MALFORMED):
        return Ledger()


def read_clocks() -> Clock:
    """Read the wall clock and the monotonic clock, in seconds."""
    return Clock(time.time(), time.monotonic())


@contextmanager
def stack_with_model(loaded: LoadedState) -> Iterator[Stack]:
    """Return the stack with its resolved model in a temporary file, which is removed at the end.

    The model may hold secrets: only the current user can read the directory.
    """
    from reconciler.desired_state.assemble import inputs_digest
    from reconciler.host.content_digest import digest

    with TemporaryDirectory(prefix="service-manager-") as folder:
        path = Path(folder) / "resolved.json"
        path.write_bytes(loaded.resolved.text)
        digests = {name: digest(content) for name, content in loaded.sources.items()}
        inputs = inputs_digest(loaded.stack.name, digests)
        yield replace(loaded.stack, model=str(path), inputs=inputs, compose=loaded.resolved.version)


@asynccontextmanager
async def open_engine(kind: str) -> AsyncIterator[Engine]:
    """Open an engine for reading; it is closed at the end.

    Raises:
        EngineUnavailable: the address of the engine can't be determined.
    """
    from reconciler.engine import registry

    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = registry.kind(kind).create(Path(folder))
        try:
            yield engine
        finally:
            await engine.close()


async def observe(engine: Engine, stack: Stack, ledger: Ledger | None = None) -> ObservedState:
    """Observe the engine once; with ``ledger``, include containers left under a former project name.

    Raises:
        EngineUnavailable: the engine does not answer, or not completely.
    """
    from reconciler.desired_state.mounted_files import MountedFiles

    observed = await engine.observe(stack, full=True)
    if ledger is not None and is_new_name(stack, ledger):
        left = await engine.left_behind(stack, former_name(stack, ledger))
        observed = replace(observed, left=left)
    if Capability.HOST_FILES in engine.capabilities:
        observed = await MountedFiles().observe_mounts(observed, stack)
    if not observed.complete:
        raise EngineUnavailable("the engine answered only a part of the requests; try again")
    return observed


async def project_rename_warnings(loaded: LoadedState, state_dir: Path) -> tuple[str, ...]:
    """Warn about containers that a changed project name leaves behind; empty if no engine answers."""
    from reconciler.engine import registry
    from reconciler.planning.project_rename import record_rename, warnings

    now = read_clocks()
    ledger = read_ledger(state_dir, now)
    if not is_new_name(loaded.stack, ledger):
        return ()
    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = registry.kind(ENGINES[0]).create(Path(folder), patience=_WARNING_TIMEOUT)
        try:
            observed = await engine.observe(loaded.stack, full=True)
            left = await engine.left_behind(loaded.stack, former_name(loaded.stack, ledger))
        except EngineError:
            return ()
        finally:
            await engine.close()
    observed = replace(observed, left=left)
    ledger = record_rename(loaded.stack, loaded.desired, observed, ledger, now)
    states = {name: state.on for name, state in loaded.desired.groups.items()}
    return warnings(loaded.stack, states, observed, ledger)
