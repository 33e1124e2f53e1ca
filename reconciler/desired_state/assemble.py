"""Build the core's values, ``Stack`` and the groups of ``Desired``, from parsed files. Pure.

Serves the current directory and the files stored with a generation, so that both have the same meaning.
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
from reconciler.desired_state.validation import (
    check_alternatives,
    check_groups,
    check_kinds,
    check_order,
    check_services,
    check_stack,
)
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.content_digest import digest
from reconciler.host.yaml_positions import Document, parse_document
from reconciler.model.desired import Desired, GroupState
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Group, Pilot, Service, Stack, UnhealthyPolicy


class ParsedFiles(NamedTuple):
    """``stack.yaml`` and ``groups.yaml`` as far as they are valid, and the mistakes found without Compose."""

    stack: Document | None
    groups: Document | None
    stack_file: StackFile | None
    groups_file: GroupsFile | None
    mistakes: tuple[Mistake, ...]


class LoadedState(NamedTuple):
    """A valid desired state. ``desired`` has no generation yet: accepting it assigns one.

    ``sources`` maps the path of every file read to its content; paths are relative to the directory, and
    absolute outside it. Loading the same contents again returns the same object.
    """

    stack: Stack
    desired: Desired
    revision: str
    sources: Mapping[str, bytes]
    resolved: Resolved

    def with_groups(self, content: bytes, states: Mapping[str, GroupState]) -> LoadedState:
        """Return this state with another ``groups.yaml``: its ``content``, and the ``states`` it means."""
        sources = {**self.sources, GROUPS: content}
        revision = revision_of(sources)
        desired = replace(self.desired, groups=dict(states), revision=revision)
        return self._replace(desired=desired, revision=revision, sources=sources)


Content = bytes | InvalidDesiredState | None
"""The result of reading a file: its bytes, the reason that it is unreadable, or None if it is missing."""


def parse_files(stack: Content, groups: Content) -> ParsedFiles:
    """Parse ``stack.yaml`` and ``groups.yaml``; reports the mistakes of both."""
    mistakes: list[Mistake] = []
    stack_document = stack_file = groups_document = groups_file = None
    try:
        stack_document, stack_file, invalid = _parse_stack(_existing(STACK, stack))
        mistakes += invalid
    except InvalidDesiredState as error:
        mistakes += error.mistakes
    try:
        groups_document, groups_file, invalid = _parse_groups(_existing(GROUPS, groups))
        mistakes += invalid
    except InvalidDesiredState as error:
        mistakes += error.mistakes
    if stack_document and groups_document and isinstance(stack_document.plain, dict):
        mistakes += check_groups(stack_document, groups_document)
    return ParsedFiles(stack_document, groups_document, stack_file, groups_file, tuple(mistakes))


@lru_cache(maxsize=4)
def _parse_stack(content: bytes) -> tuple[Document, StackFile | None, tuple[Mistake, ...]]:
    # Cached, since groups are switched far more often than stack.yaml is edited.
    document = parse_document(STACK, content)
    file, mistakes = read_stack(document)
    return document, file, (*mistakes, *check_stack(document))


@lru_cache(maxsize=8)
def _parse_groups(content: bytes) -> tuple[Document, GroupsFile | None, tuple[Mistake, ...]]:
    # Cached, since a write parses the content before and after the edit several times.
    document = parse_document(GROUPS, content)
    file, mistakes = read_groups(document)
    return document, file, mistakes


def _existing(name: str, content: Content) -> bytes:
    if content is None:
        raise InvalidDesiredState((Mistake(name, 0, 0, "there is no such file"),))
    if isinstance(content, InvalidDesiredState):
        raise content
    return content


def assemble(
    parsed: ParsedFiles, resolved: Resolved, directory: str, notes: Iterable[str] = ()
) -> tuple[Stack, dict[str, GroupState]]:
    """Build the stack and the state of its groups from parsed files and the resolved Compose model.

    ``directory`` is the project directory; ``notes`` become warnings of the stack.

    Raises:
        InvalidDesiredState: with the mistakes of ``parsed`` and those found by comparison with the model.
    """
    mistakes = list(parsed.mistakes)
    project = parsed.stack_file.name if parsed.stack_file else ""
    services = services_from(resolved, project)
    if parsed.stack:
        mistakes += check_services(parsed.stack, services)
        mistakes += check_alternatives(parsed.stack, services)
        mistakes += check_kinds(parsed.stack, services)
    if mistakes or not (parsed.stack and parsed.stack_file and parsed.groups_file):
        raise InvalidDesiredState(sort_mistakes(mistakes))
    stack = _stack(
        parsed.stack_file, services, directory, (*resolved.warnings, *warnings_from(resolved), *notes)
    )
    mistakes += check_order(parsed.stack, stack)
    if mistakes:
        raise InvalidDesiredState(sort_mistakes(mistakes))
    return stack, group_states(parsed.groups_file)


def parse_group_states(content: bytes) -> dict[str, GroupState]:
    """Parse a ``groups.yaml`` alone and return the state of each group.

    Raises:
        InvalidDesiredState: with every mistake in it.
    """
    _, file, mistakes = _parse_groups(content)
    if file is None:
        raise InvalidDesiredState(mistakes)
    return group_states(file)


def group_states(groups: GroupsFile) -> dict[str, GroupState]:
    """Return the state of each group in ``groups.yaml``."""
    return {name: entry.group_state() for name, entry in groups.groups.items()}


def sort_mistakes(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """Return each mistake once, sorted: ``stack.yaml``, ``groups.yaml``, other files; then by position."""
    rank = {STACK: 0, GROUPS: 1}
    return tuple(
        sorted(set(mistakes), key=lambda m: (rank.get(m.path, 2), m.path, m.line, m.column, m.message))
    )


def revision_of(sources: Mapping[str, bytes]) -> str:
    """Return a digest of the names and contents of all files read."""
    return digest("".join(f"{digest(sources[name])} {name}\n" for name in sorted(sources)).encode())


def inputs_digest(project: str, sources: Mapping[str, str]) -> str:
    """Return a digest of the inputs of the Compose model; ``sources`` maps names to content digests."""
    files = [f"{value} {name}\n" for name, value in sorted(sources.items()) if name not in {STACK, GROUPS}]
    return digest(f"{project}\n{''.join(files)}".encode())


def source_name(path: PurePath, directory: PurePath) -> str:
    """Return the name of a file in mistakes and records: relative inside the directory, else absolute."""
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _stack(
    file: StackFile, services: Mapping[str, Service], directory: str, warnings: tuple[str, ...]
) -> Stack:
    kinds = {name: replace(services[name], kind=entry.kind) for name, entry in file.services.items()}
    return Stack(
        name=file.name,
        groups={name: _group(name, entry) for name, entry in file.groups.items()},
        services={**services, **kinds},
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
