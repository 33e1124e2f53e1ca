"""A first desired-state directory from any Compose file (``init``).

Resolves the file through Compose, draws groups (``groups``), writes them as YAML that teaches
(``text``), and lets the store judge the outcome before anything is written where it stays.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from reconciler.cli.init.groups import Proposal, sketch
from reconciler.cli.init.text import groups_text, stack_text
from reconciler.cli.oneshot import load, observe, open_engine
from reconciler.desired_state.compose_model import services_from
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import EngineError, InvalidDesiredState, ServiceManagerError
from reconciler.model.json_text import load_json
from reconciler.model.observed import ALIVE
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Group, Service, Stack

_DEFAULT_NAMES = frozenset({"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"})
_OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


class Refused(ServiceManagerError):
    """Nothing was written. ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class InitResult(NamedTuple):
    """What was written, and what its reader should know."""

    written: tuple[Path, ...]
    groups: int
    services: int
    notes: tuple[str, ...]


class _Running(NamedTuple):
    # Services that run now with the memory that they use (bytes, 0: not measured); None: nobody to ask.
    services: Mapping[str, int] | None
    note: str


async def scaffold(file: Path, directory: Path, *, force: bool = False, engine: str = "docker") -> InitResult:
    """Write ``stack.yaml`` and ``groups.yaml`` into ``directory``; makes it, changes nothing else.

    Raises:
        Refused: there is no such Compose file, it has no services, or files would be written over.
        InvalidDesiredState: Compose rejects the file.
        StepFailed: there is no Docker Compose.
    """
    await asyncio.to_thread(_check, file, directory, force)
    files = await asyncio.to_thread(_with_override, file)
    resolved, name = await _resolve(files, engine)
    model = load_json(resolved.text)
    if not model.get("services"):
        raise Refused(f"{file} has no services", "name a Compose file that has some")
    services = services_from(resolved, name)
    running = await _running(name, resolved, engine)
    drawn = sketch(model["services"], services, running.services or {})
    on = {group.name for group in drawn.groups if set(group.services) & set(running.services or {})}
    state = groups_text(drawn, on, running.note)
    # Judged with absolute paths, since it is not where it will be.
    await _judge(stack_text(name, [str(path) for path in files], drawn), state)
    shown = [_shown(path, directory) for path in files]
    written = await asyncio.to_thread(_write, directory, stack_text(name, shown, drawn), state, force)
    notes = (*_everything(name, services).numbers, *_notes(files, drawn, running, resolved))
    return InitResult(written, len(drawn.groups), len(services), notes)


def _check(file: Path, directory: Path, force: bool) -> None:
    if not file.is_file():
        raise Refused(f"there is no file {file}", "name the Compose file of the project")
    there = [name for name in (STACK, GROUPS) if os.path.lexists(directory / name)]
    if there and not force:
        raise Refused(
            f"{directory} has {' and '.join(there)} already; nothing was written",
            "choose another --desired-state, or write over them with --force",
        )


def _with_override(file: Path) -> list[Path]:
    # What `docker compose up` reads when it is given no file: without its override, all containers of
    # the project would count as made from another definition.
    found = [file.parent / name for name in _OVERRIDES if (file.parent / name).is_file()]
    return [file, *found[:1]] if file.name in _DEFAULT_NAMES else [file]


async def _resolve(files: list[Path], engine: str) -> tuple[Resolved, str]:
    """Return the model, and the project name that Compose itself gives it."""
    from reconciler.engine import registry

    # No name: Compose takes it from `name:`, from .env or from the folder, as a person's call would.
    first = await registry.kind(engine).resolver(os.environ)(files, files[0].parent, "")
    return first, str(load_json(first.text)["name"])


async def _running(name: str, resolved: Resolved, engine: str) -> _Running:
    services = services_from(resolved, name)
    stack = _everything(name, services)
    try:
        async with open_engine(engine) as asked:
            observed = await observe(asked, stack)
            alive = tuple(c for c in observed.containers if c.state in ALIVE and c.service in services)
            usage = await asked.stats(alive) if alive else {}
    except EngineError as error:
        return _Running(None, f"running containers are unknown ({error}), so every group is off")
    found: dict[str, int] = {}
    for container in alive:
        measured = usage[container.id].memory if container.id in usage else 0
        found[container.service] = max(found.get(container.service, 0), measured)
    return _Running(found, "on is what had a running container when this was written")


def _everything(name: str, services: Mapping[str, Service]) -> Stack:
    return Stack(name=name, groups={"all": Group(name="all", services=tuple(services))}, services=services)


async def _judge(stack: str, groups: str) -> None:
    with TemporaryDirectory(prefix="service-manager-") as folder:
        await asyncio.to_thread(_put, Path(folder), stack, groups)
        try:
            await load(Path(folder))
        except InvalidDesiredState as error:
            text = "; ".join(str(mistake) for mistake in error.mistakes)
            raise Refused(f"the generated desired state is not valid: {text}", "please report it") from error


def _put(folder: Path, stack: str, groups: str) -> None:
    (folder / STACK).write_text(stack, encoding="utf-8")
    (folder / GROUPS).write_text(groups, encoding="utf-8")


def _shown(file: Path, directory: Path) -> str:
    """How stack.yaml names a Compose file: relative where both move together, else absolute."""
    relative = os.path.relpath(file, directory)
    beside = file.is_relative_to(directory.parent) or directory.is_relative_to(file.parent)
    return relative if beside else str(file)


def _write(directory: Path, stack: str, groups: str, force: bool) -> tuple[Path, ...]:
    """Write both files or none; overwrite existing files only with ``force``."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        for name, text in ((STACK, stack), (GROUPS, groups)):
            target = directory / name
            written.append(target)
            if force:
                _replace(target, text)
            else:
                with target.open("x", encoding="utf-8") as opened:
                    opened.write(text)
    except FileExistsError:
        for made in written[:-1]:
            made.unlink()
        raise Refused(f"{written[-1]} was created in between; nothing was written", "try again") from None
    except OSError as error:
        raise Refused(f"{written[-1]} can't be written: {error.strerror}") from error
    return tuple(written)


def _replace(target: Path, text: str) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _notes(files: list[Path], drawn: Proposal, running: _Running, resolved: Resolved) -> tuple[str, ...]:
    notes: list[Any] = []
    if running.services is None:
        notes.append(running.note)
    if len(files) > 1:
        notes.append(f"{files[1].name} is included, as with `docker compose up`")
    guessed = [group.name for group in drawn.groups if group.guessed]
    if guessed:
        notes.append(f"memory is partly a guess for {', '.join(guessed)}; correct it in stack.yaml")
    return (*notes, *drawn.notes, *resolved.warnings)
