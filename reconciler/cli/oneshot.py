"""Desired state and engine for one look without a daemon: what ``plan``, ``validate``, ``doctor`` and
``init`` share. Like ``daemon`` a composition root, but one that only looks.
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

from reconciler.controller.ledger_file import NAME, boot_id
from reconciler.errors import EngineError, EngineUnavailable, Mistake, ServiceManagerError
from reconciler.host.compose_paths import current_directory
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.json_text import load_json
from reconciler.model.ledger import Clock, Ledger, for_boot, from_json
from reconciler.options import INSTALLED_DESIRED
from reconciler.planning.project_rename import former_name, is_new

if TYPE_CHECKING:
    from reconciler.desired_state.store import LoadedState
    from reconciler.engine import Engine
    from reconciler.model.keyed_digest import DigestKey
    from reconciler.model.observed import ObservedState
    from reconciler.model.stack import Stack


_GLANCE = 2.0
"""Seconds that an engine is given which only adds a warning."""


class NoDirectory(ServiceManagerError):
    """There is no desired-state directory where it was looked for. ``remedy`` says what to do."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"there is no directory {directory}")
        self.remedy = "say where it is with --desired-state, "
        if directory != INSTALLED_DESIRED and INSTALLED_DESIRED.is_dir():
            self.remedy += f"the installed one is {INSTALLED_DESIRED}"
        else:
            self.remedy += "or make one with `service-manager init COMPOSE_FILE`"


async def load(
    directory: Path, compose_files: Sequence[Path] = (), *, key: DigestKey | None = None
) -> LoadedState:
    """The desired state in a directory. ``key``: that of the daemon, to compare with what it remembers.

    Raises:
        NoDirectory: there is none.
        InvalidDesiredState: with every mistake; paths as the caller gave them.
        StepFailed: there is no Docker Compose.
    """
    from reconciler.desired_state.digest_key_file import keyed
    from reconciler.desired_state.store import Store
    from reconciler.engine.compose.discovery import environment
    from reconciler.engine.compose.engine import resolve

    if not await asyncio.to_thread(directory.is_dir):
        raise NoDirectory(directory)
    store = Store(
        directory, keyed(resolve, key), extra_compose=compose_files, environment=environment(os.environ)
    )
    return await store.load()


def relative_to_cwd(mistake: Mistake, directory: Path) -> Mistake:
    """The mistake with its path as seen from here, so that an editor can jump to it."""
    path = directory / mistake.path
    with contextlib.suppress(ValueError):
        path = path.relative_to(current_directory())
    return mistake._replace(path=str(path))


def read_ledger(state_dir: Path, now: Clock) -> Ledger:
    """What the daemon remembers; empty where there is nothing to be read. Reads only."""
    try:
        return for_boot(from_json(load_json(read_regular(state_dir / NAME)), now), boot_id())
    except (OSError, *MALFORMED):
        return Ledger()


def read_clocks() -> Clock:
    """The two clocks, now."""
    return Clock(time.time(), time.monotonic())


@contextmanager
def stack_with_model(loaded: LoadedState) -> Iterator[Stack]:
    """The stack with its resolved model in a file of its own, there as long as the ``with`` lasts.

    It may hold secrets: the directory is the caller's alone.
    """
    from reconciler.desired_state.assemble import inputs_digest
    from reconciler.host.content_digest import digest

    with TemporaryDirectory(prefix="service-manager-") as folder:
        path = Path(folder) / "resolved.json"
        path.write_bytes(loaded.resolved.text)
        held = {name: digest(content) for name, content in loaded.sources.items()}
        inputs = inputs_digest(loaded.stack.name, held)
        yield replace(loaded.stack, model=str(path), inputs=inputs, compose=loaded.resolved.version)


@asynccontextmanager
async def engine_of(kind: str) -> AsyncIterator[Engine]:
    """An engine to look at, closed at the end.

    Raises:
        EngineUnavailable: where the engine is can't be found out.
    """
    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = _made(kind, Path(folder))
        try:
            yield engine
        finally:
            await engine.close()


async def observe(engine: Engine, stack: Stack, ledger: Ledger | None = None) -> ObservedState:
    """One whole look; with ``ledger`` also at what another project name would leave behind.

    Raises:
        EngineUnavailable: it could not be had.
    """
    from reconciler.desired_state.mounted_files import MountedFiles

    observed = await engine.observe(stack, full=True)
    if ledger is not None and is_new(stack, ledger):
        left = await engine.left_behind(stack, former_name(stack, ledger))
        observed = replace(observed, left=left)
    if engine.is_local:
        observed = await MountedFiles().observe_mounts(observed, stack)
    if not observed.complete:
        raise EngineUnavailable("the engine did not answer everything that was asked of it; try again")
    return observed


async def name_warnings(loaded: LoadedState, state_dir: Path) -> tuple[str, ...]:
    """What a changed project name would leave behind on this machine's engine; empty where none answers."""
    from reconciler.engine.docker.engine import DockerEngine
    from reconciler.planning.project_rename import renamed, warnings

    now = read_clocks()
    ledger = read_ledger(state_dir, now)
    if not is_new(loaded.stack, ledger):
        return ()
    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = DockerEngine(Path(folder), patience=_GLANCE)
        try:
            observed = await engine.observe(loaded.stack, full=True)
            left = await engine.left_behind(loaded.stack, former_name(loaded.stack, ledger))
        except EngineError:
            return ()
        finally:
            await engine.close()
    observed = replace(observed, left=left)
    ledger = renamed(loaded.stack, loaded.desired, observed, ledger, now)
    states = {name: state.on for name, state in loaded.desired.groups.items()}
    return warnings(loaded.stack, states, observed, ledger)


def _made(kind: str, folder: Path) -> Engine:
    if kind == "simulated":
        from reconciler.engine.simulated.engine import SimulatedEngine

        return SimulatedEngine()
    from reconciler.engine.docker.engine import DockerEngine

    return DockerEngine(folder)
