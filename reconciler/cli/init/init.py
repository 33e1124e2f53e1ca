"""Writes a first desired-state directory for a Compose file (``init``).

Resolves the file with Compose, proposes groups (``groups``) and generates commented YAML (``text``). The
files are validated in a temporary directory before they are written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from reconciler.cli.init.groups import Proposal, propose_groups
from reconciler.cli.init.text import groups_text, stack_text
from reconciler.cli.oneshot import load, observe, open_engine
from reconciler.desired_state.compose_inputs import assignments
from reconciler.desired_state.compose_model import services_from, warnings_from
from reconciler.desired_state.compose_selection import (
    ENV_FILES,
    FILE,
    PROFILES,
    SEPARATOR,
    selection,
    with_selection,
)
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import EngineError, InvalidDesiredState, ServiceManagerError
from reconciler.host.compose_paths import working_directory
from reconciler.host.untrusted import read_regular
from reconciler.model.json_text import load_json
from reconciler.model.observed import ALIVE
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Group, Service, Stack


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
    # ``files`` are the labels that name the Compose files of the containers.
    services: Mapping[str, int] | None
    note: str
    files: frozenset[str] = frozenset()


async def scaffold(file: Path, directory: Path, *, force: bool = False, engine: str = "docker") -> InitResult:
    """Write ``stack.yaml`` and ``groups.yaml`` into ``directory``, which is created. Changes nothing else.

    Raises:
        InitRefused: there is no such Compose file, it has no services, or files would be overwritten.
        InvalidDesiredState: Compose rejects the file.
        StepFailed: there is no Docker Compose.
    """
    await asyncio.to_thread(_check, file, directory, force)
    files, found = await asyncio.to_thread(_project_files, file)
    resolved, name = await _resolve(files, engine)
    model = load_json(resolved.text)
    services = services_from(resolved, name)
    running = await _running(name, resolved, engine)
    proposal = propose_groups(model["services"], services, running.services or {})
    on = {group.name for group in proposal.groups if set(group.services) & set(running.services or {})}
    state = groups_text(proposal, on, running.note)
    # Absolute paths, because the temporary directory is elsewhere.
    await _validate(stack_text(name, [str(path) for path in files], proposal), state)
    paths = [_path_in_stack(path, directory) for path in files]
    written = await asyncio.to_thread(_write, directory, stack_text(name, paths, proposal), state, force)
    other = _made_from_other_files(files, running)
    notes = (
        *_one_group_stack(name, services).numbers,
        *found,
        *other,
        *_notes(proposal, running, resolved),
    )
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


def _project_files(file: Path) -> tuple[list[Path], list[str]]:
    """Return all files of the project, given one of them, and notes about the variables that say so.

    `docker compose up` in the folder reads more than one file if COMPOSE_FILE or an override file says so.
    Without them, all containers of the project would count as created from another definition.
    """
    folder = file.parent
    settings = {name: os.environ[name] for name in (FILE, SEPARATOR, PROFILES) if os.environ.get(name)}
    with contextlib.suppress(OSError):
        settings = {**assignments(read_regular(folder / ".env")), **settings}
    chosen = selection(folder, settings, Path.is_file)
    files = with_selection(file, chosen)
    notes = []
    if chosen.variable and files != chosen.files:
        notes.append(
            f"{FILE} names other files ({settings[FILE]}), not {file.name}: only {file.name} is used"
        )
    elif chosen.variable:
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise InitRefused(f"{FILE} names {missing[0]}, which does not exist", f"correct {FILE}")
        if len(files) > 1:
            notes.append(f"{FILE} names {settings[FILE]}: all of them are used, in this order")
    elif len(files) > 1:
        notes.append(f"{files[1].name} is included, as with `docker compose up`")
    if settings.get(PROFILES):
        notes.append(
            f"{PROFILES} is {settings[PROFILES]}: it has no effect here, where groups.yaml says what is on"
        )
    if os.environ.get(ENV_FILES) or settings.get(ENV_FILES):
        notes.append(f"{ENV_FILES} has no effect here: variables come from the .env beside the Compose file")
    return list(files), notes


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
    note = "on: groups that had a running container when this file was written"
    return _Running(memory, note, frozenset(container.model for container in alive if container.model))


def _one_group_stack(name: str, services: Mapping[str, Service]) -> Stack:
    return Stack(name=name, groups={"all": Group(name="all", services=tuple(services))}, services=services)


async def _validate(stack: str, groups: str) -> None:
    with TemporaryDirectory(prefix="service-manager-") as folder:
        await asyncio.to_thread(_write_texts, Path(folder), stack, groups)
        try:
            await load(Path(folder))
        except InvalidDesiredState as error:
            text = "; ".join(str(mistake) for mistake in error.mistakes)
            if not any(mistake.path in {STACK, GROUPS} for mistake in error.mistakes):
                raise InitRefused(text, "correct the project's files, then run it again") from error
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


def _made_from_other_files(files: Sequence[Path], running: _Running) -> tuple[str, ...]:
    """Return a note if a person created the running containers with other ``-f`` than these files."""
    ours = [working_directory(path) for path in files]
    for made in sorted(running.files):
        theirs = made.split(",")
        if theirs != ours and set(ours) <= set(theirs) and all(Path(path).is_file() for path in theirs):
            return (
                f"running containers were created from {', '.join(theirs)}: to use all of them, run "
                f"`{FILE}={':'.join(theirs)} service-manager init {files[0]} --force`",
            )
    return ()


def _notes(proposal: Proposal, running: _Running, resolved: Resolved) -> tuple[str, ...]:
    notes: list[Any] = []
    if running.services is None:
        notes.append(running.note)
    guessed = [group.name for group in proposal.groups if group.guessed]
    if guessed:
        notes.append(f"memory is partly a guess for {', '.join(guessed)}; correct it in stack.yaml")
    return (*notes, *proposal.notes, *resolved.warnings, *warnings_from(resolved))
