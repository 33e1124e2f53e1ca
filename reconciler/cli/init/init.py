"""Writes a first desired-state directory for a Compose file (``init``).

Resolves the file with Compose, proposes groups (``groups``) and generates commented YAML (``text``). The
files are validated in a temporary directory before they are written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from reconciler.cli.init.groups import Proposal, propose_groups
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


class InitRefused(ServiceManagerError):
    """Nothing was written. ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class InitResult(NamedTuple):
    """The written files, and notes for the user."""

    written: tuple[Path, ...]
    groups: int
    services: int
    notes: tuple[str, ...]


class _Running(NamedTuple):
    # Running services with their memory (bytes, 0: not measured); None: the engine does not answer.
    services: Mapping[str, int] | None
    note: str


async def scaffold(file: Path, directory: Path, *, force: bool = False, engine: str = "docker") -> InitResult:
    """Write ``stack.yaml`` and ``groups.yaml`` into ``directory``, which is created. Changes nothing else.

    Raises:
        InitRefused: there is no such Compose file, it has no services, or files would be overwritten.
        InvalidDesiredState: Compose rejects the file.
        StepFailed: there is no Docker Compose.
    """
    await asyncio.to_thread(_check, file, directory, force)
    files = await asyncio.to_thread(_with_override, file)
    resolved, name = await _resolve(files, engine)
    model = load_json(resolved.text)
    if not model.get("services"):
        raise InitRefused(f"{file} has no services", "give a Compose file with services")
    services = services_from(resolved, name)
    running = await _running(name, resolved, engine)
    proposal = propose_groups(model["services"], services, running.services or {})
    on = {group.name for group in proposal.groups if set(group.services) & set(running.services or {})}
    state = groups_text(proposal, on, running.note)
    # Absolute paths, because the temporary directory is elsewhere.
    await _validate(stack_text(name, [str(path) for path in files], proposal), state)
    paths = [_path_in_stack(path, directory) for path in files]
    written = await asyncio.to_thread(_write, directory, stack_text(name, paths, proposal), state, force)
    notes = (*_one_group_stack(name, services).numbers, *_notes(files, proposal, running, resolved))
    return InitResult(written, len(proposal.groups), len(services), notes)


def _check(file: Path, directory: Path, force: bool) -> None:
    if not file.is_file():
        raise InitRefused(f"there is no file {file}", "give the Compose file of the project")
    existing = [name for name in (STACK, GROUPS) if os.path.lexists(directory / name)]
    if existing and not force:
        raise InitRefused(
            f"{directory} has {' and '.join(existing)} already; nothing was written",
            "choose another --desired-state, or overwrite them with --force",
        )


def _with_override(file: Path) -> list[Path]:
    # `docker compose up` without a file reads the override, too. Without it, all containers of the project
    # would count as created from another definition.
    overrides = [file.parent / name for name in _OVERRIDES if (file.parent / name).is_file()]
    return [file, *overrides[:1]] if file.name in _DEFAULT_NAMES else [file]


async def _resolve(files: list[Path], engine: str) -> tuple[Resolved, str]:
    """Return the model, and the project name that Compose itself gives it."""
    from reconciler.engine import registry

    # Without a name, Compose takes it from `name:`, .env or the folder, as for `docker compose up`.
    first = await registry.kind(engine).resolver(os.environ)(files, files[0].parent, "")
    return first, str(load_json(first.text)["name"])


async def _running(name: str, resolved: Resolved, engine: str) -> _Running:
    services = services_from(resolved, name)
    stack = _one_group_stack(name, services)
    try:
        async with open_engine(engine) as opened:
            observed = await observe(opened, stack)
            alive = tuple(c for c in observed.containers if c.state in ALIVE and c.service in services)
            usage = await opened.stats(alive) if alive else {}
    except EngineError as error:
        return _Running(None, f"running containers are unknown ({error}), so every group is off")
    memory: dict[str, int] = {}
    for container in alive:
        measured = usage[container.id].memory if container.id in usage else 0
        memory[container.service] = max(memory.get(container.service, 0), measured)
    return _Running(memory, "on: groups that had a running container when this file was written")


def _one_group_stack(name: str, services: Mapping[str, Service]) -> Stack:
    return Stack(name=name, groups={"all": Group(name="all", services=tuple(services))}, services=services)


async def _validate(stack: str, groups: str) -> None:
    with TemporaryDirectory(prefix="service-manager-") as folder:
        await asyncio.to_thread(_write_texts, Path(folder), stack, groups)
        try:
            await load(Path(folder))
        except InvalidDesiredState as error:
            text = "; ".join(str(mistake) for mistake in error.mistakes)
            raise InitRefused(
                f"the generated desired state is not valid: {text}", "please report it"
            ) from error


def _write_texts(folder: Path, stack: str, groups: str) -> None:
    (folder / STACK).write_text(stack, encoding="utf-8")
    (folder / GROUPS).write_text(groups, encoding="utf-8")


def _path_in_stack(file: Path, directory: Path) -> str:
    """Return the path of a Compose file for stack.yaml: relative if both can be moved together."""
    relative = os.path.relpath(file, directory)
    together = file.is_relative_to(directory.parent) or directory.is_relative_to(file.parent)
    return relative if together else str(file)


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
        for created in written[:-1]:
            created.unlink()
        raise InitRefused(f"{written[-1]} was created in between; nothing was written", "try again") from None
    except OSError as error:
        raise InitRefused(f"{written[-1]} can't be written: {error.strerror}") from error
    return tuple(written)


def _replace(target: Path, text: str) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _notes(files: list[Path], proposal: Proposal, running: _Running, resolved: Resolved) -> tuple[str, ...]:
    notes: list[Any] = []
    if running.services is None:
        notes.append(running.note)
    if len(files) > 1:
        notes.append(f"{files[1].name} is included, as with `docker compose up`")
    guessed = [group.name for group in proposal.groups if group.guessed]
    if guessed:
        notes.append(f"memory is partly a guess for {', '.join(guessed)}; correct it in stack.yaml")
    return (*notes, *proposal.notes, *resolved.warnings)
