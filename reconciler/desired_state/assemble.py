"""From what was read to the values that the core works with: ``Stack`` and the groups of ``Desired``.

Pure. Used for the directory as it is now and for what a generation froze, so that both mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePath
from typing import NamedTuple

from reconciler.desired_state.compose_model import services_from, warnings_from
from reconciler.desired_state.schema import (
    GROUPS,
    STACK,
    GroupEntry,
    GroupsFile,
    StackFile,
    read_groups,
    read_stack,
)
from reconciler.desired_state.validation import check_groups, check_order, check_services, check_stack
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.content_digest import digest
from reconciler.host.yaml_positions import Document, parse_document
from reconciler.model.desired import Desired, GroupState
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Group, Pilot, Service, Stack, UnhealthyPolicy


class ParsedFiles(NamedTuple):
    """Our two files, each as far as it could be read, and every mistake that the two alone show."""

    stack: Document | None
    groups: Document | None
    stack_file: StackFile | None
    groups_file: GroupsFile | None
    mistakes: tuple[Mistake, ...]


class LoadedState(NamedTuple):
    """A valid desired state as it was read. ``desired`` has no generation yet: accepting it gives one.

    ``sources`` holds every file read, by its path relative to the directory, absolute where it lies
    outside. Loading the same contents again gives the very same object.
    """

    stack: Stack
    desired: Desired
    revision: str
    sources: Mapping[str, bytes]
    resolved: Resolved


class Assembled(NamedTuple):
    """A valid desired state, without the number that accepting it gives."""

    stack: Stack
    groups: Mapping[str, GroupState]


Content = bytes | InvalidDesiredState | None
"""What reading a file gave: its bytes, why it can't be read, or None if there is no such file."""


def parse_files(stack: Content, groups: Content) -> ParsedFiles:
    """Reads ``stack.yaml`` and ``groups.yaml``; a mistake in one hides none of the other's."""
    mistakes: list[Mistake] = []
    stack_document = stack_file = groups_document = groups_file = None
    try:
        stack_document, stack_file, told = _stack_parts(_there(STACK, stack))
        mistakes += told
    except InvalidDesiredState as error:
        mistakes += error.mistakes
    try:
        groups_document, groups_file, told = _groups_parts(_there(GROUPS, groups))
        mistakes += told
    except InvalidDesiredState as error:
        mistakes += error.mistakes
    if stack_document and groups_document and isinstance(stack_document.plain, dict):
        mistakes += check_groups(stack_document, groups_document)
    return ParsedFiles(stack_document, groups_document, stack_file, groups_file, tuple(mistakes))


@lru_cache(maxsize=4)
def _stack_parts(content: bytes) -> tuple[Document, StackFile | None, tuple[Mistake, ...]]:
    # Remembered, since groups are switched far more often than stack.yaml is edited.
    document = parse_document(STACK, content)
    file, told = read_stack(document)
    return document, file, (*told, *check_stack(document))


@lru_cache(maxsize=8)
def _groups_parts(content: bytes) -> tuple[Document, GroupsFile | None, tuple[Mistake, ...]]:
    # Remembered, since a write asks for what it found, what it made of it, and what that means.
    document = parse_document(GROUPS, content)
    file, told = read_groups(document)
    return document, file, told


def _there(name: str, content: Content) -> bytes:
    if content is None:
        raise InvalidDesiredState((Mistake(name, 0, 0, "there is no such file"),))
    if isinstance(content, InvalidDesiredState):
        raise content
    return content


def assemble(parsed: ParsedFiles, resolved: Resolved, directory: str, notes: Iterable[str] = ()) -> Assembled:
    """The desired state that the files mean together.

    ``directory`` is the project directory; ``notes`` become warnings of the stack.

    Raises:
        InvalidDesiredState: with the mistakes of ``parsed`` and those that only show beside Compose's model.
    """
    mistakes = list(parsed.mistakes)
    project = parsed.stack_file.name if parsed.stack_file else ""
    services = services_from(resolved, project)
    if parsed.stack:
        mistakes += check_services(parsed.stack, services)
    if mistakes or not (parsed.stack and parsed.stack_file and parsed.groups_file):
        raise InvalidDesiredState(sort_mistakes(mistakes))
    stack = _stack(
        parsed.stack_file, services, directory, (*resolved.warnings, *warnings_from(resolved), *notes)
    )
    mistakes += check_order(parsed.stack, stack)
    if mistakes:
        raise InvalidDesiredState(sort_mistakes(mistakes))
    return Assembled(stack, group_states(parsed.groups_file))


def parse_group_states(content: bytes) -> dict[str, GroupState]:
    """What a ``groups.yaml`` says of each group, for itself.

    Raises:
        InvalidDesiredState: with every mistake in it.
    """
    _, file, mistakes = _groups_parts(content)
    if file is None:
        raise InvalidDesiredState(mistakes)
    return group_states(file)


def group_states(groups: GroupsFile) -> dict[str, GroupState]:
    """What ``groups.yaml`` says of each group."""
    return {name: entry.group_state() for name, entry in groups.groups.items()}


def replace_groups(loaded: LoadedState, groups: bytes) -> LoadedState:
    """``loaded`` with another ``groups.yaml`` (JSON is YAML too), for what is about to be, or might be.

    Raises:
        InvalidDesiredState: with every mistake in ``groups``.
    """
    parsed = parse_files(loaded.sources[STACK], groups)
    if parsed.mistakes or parsed.groups_file is None:
        raise InvalidDesiredState(sort_mistakes(parsed.mistakes))
    sources = {**loaded.sources, GROUPS: groups}
    revision = revision_of(sources)
    desired = replace(loaded.desired, groups=group_states(parsed.groups_file), revision=revision)
    return loaded._replace(desired=desired, revision=revision, sources=sources)


def sort_mistakes(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Each mistake once: ``stack.yaml``, ``groups.yaml``, then the others, from top to bottom."""
    rank = {STACK: 0, GROUPS: 1}
    return tuple(
        sorted(set(mistakes), key=lambda m: (rank.get(m.path, 2), m.path, m.line, m.column, m.message))
    )


def revision_of(sources: Mapping[str, bytes]) -> str:
    """A digest of names and contents of all that was read."""
    return digest("".join(f"{digest(sources[name])} {name}\n" for name in sorted(sources)).encode())


def inputs_digest(project: str, sources: Mapping[str, str]) -> str:
    """A digest of what the Compose model was resolved from; ``sources`` are digests of contents by name."""
    files = [f"{held} {name}\n" for name, held in sorted(sources.items()) if name not in {STACK, GROUPS}]
    return digest(f"{project}\n{''.join(files)}".encode())


def source_name(path: PurePath, directory: PurePath) -> str:
    """How a file is called in mistakes and records: relative where it lies in the directory."""
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _stack(
    file: StackFile, services: Mapping[str, Service], directory: str, warnings: tuple[str, ...]
) -> Stack:
    return Stack(
        name=file.name,
        groups={name: _group(name, entry) for name, entry in file.groups.items()},
        services=services,
        pilot=Pilot(tuple(file.pilot.groups), file.pilot.memory),
        prune=file.prune,
        restart=file.restart,
        directory=directory,
        warnings=warnings,
    )


def _group(name: str, entry: GroupEntry) -> Group:
    limit, window = entry.unhealthy.limit
    return Group(
        name=name,
        services=tuple(entry.services),
        description=entry.description,
        memory=entry.memory,
        depends_on=entry.depends_on,
        unhealthy=UnhealthyPolicy(entry.unhealthy.after, entry.unhealthy.action, limit, window),
        on_change=entry.on_change,
    )
