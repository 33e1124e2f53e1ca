"""Observes the engine: one list call if nothing changed, and inspections of changed containers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.identity import Identity
from reconciler.engine.docker.image_tags import ImageTags
from reconciler.engine.docker.parse import (
    Unreadable,
    claims,
    container,
    id_of,
    image_named,
    name_of,
    state_from,
    summary_key,
    unreadable,
)
from reconciler.errors import EngineUnavailable
from reconciler.model.capabilities import ALL, Capabilities
from reconciler.model.observed import Container, Health, ObservedState, State
from reconciler.model.stack import Stack

_AT_ONCE = 8
"""Concurrent inspections; the engine answers each in 0.3 ms, so more gain nothing."""
_LEFT_ALONE = 30.0
"""Seconds for which a container is not inspected again after its inspection hung: one stuck container must
not cost every observation its deadline.
"""
_REFUSALS = 3
"""Consecutive refused inspections after which a container is in an unknown state.

Until then the observation is incomplete, since most refusals end before the next inspection.
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ObservedCache:
    summary: tuple[object, ...]
    container: Container


class Observer:
    """Caches the last inspections, and which of them are outdated."""

    def __init__(self, http: DockerHttp, capabilities: Capabilities = ALL) -> None:
        self.subscribed = False
        self._http = http
        self._capabilities = capabilities
        self._project = ""
        self._known: dict[str, _ObservedCache] = {}
        self._moved: set[str] = set()
        self._everything_moved = True
        self._stuck: dict[str, float] = {}
        self._starved: dict[str, float] = {}
        self._stops: dict[str, float] = {}
        # By container: whether it is being stopped.
        self._held: dict[str, bool] = {}
        self._refused: dict[str, int] = {}
        self._odd: dict[str, str] = {}
        self._identity = Identity(http)
        self._turn = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._images = ImageTags(http, self._slots)

    def is_known(self, container_id: str) -> Container | None:
        """Return the container as last observed."""
        known = self._known.get(container_id)
        return known.container if known else None

    def named(self, name: str) -> Container | None:
        """Return the container of that name as last observed."""
        return next((known.container for known in self._known.values() if known.container.name == name), None)

    def is_held(self, container_id: str) -> bool:
        """Whether a command of this daemon runs on the container; see ``holding``."""
        return container_id in self._held

    def note_exit(self, container_id: str, at: float, exit_code: int) -> bool:
        """Record that the process of a held container ended (wall seconds); True if observations show it now.

        Observations show it if the container is being stopped. The engine then removes its network, which
        takes half a second when several containers end at once, and answers no inspection until then. A
        component that waits for the end of the process does not wait for the network.
        """
        known = self._known.get(container_id)
        if known is None or not self._held.get(container_id) or known.container.started_at > at:
            return False
        over = dataclasses.replace(
            known.container,
            state=State.EXITED,
            health=Health.NONE,
            exit_code=exit_code,
            finished_at=at,
            pid=0,
        )
        self._known[container_id] = _ObservedCache((), over)
        return True

    def invalidate(self, container_id: str) -> None:
        """Record that the container may have changed in a way that the list does not show."""
        self._moved.add(container_id)

    def note_starved(self, container_id: str, at: float) -> None:
        """Record that the OOM killer ended a process of this container at ``at`` (the engine's clock).

        The engine's own flag says so for some versions only, and only after the container has ended.
        """
        self._starved[container_id] = at

    def note_stop(self, container_id: str, at: float) -> None:
        """Record that a client stopped this container, or sent it a signal that ends it (engine's clock)."""
        at = max(at, self._stops.get(container_id, 0.0))
        self._stops[container_id] = at
        known = self._known.get(container_id)
        if known is not None:
            stopped = dataclasses.replace(known.container, stop_requested_at=at)
            self._known[container_id] = _ObservedCache(known.summary, stopped)

    @contextlib.contextmanager
    def holding(self, container_id: str, *, stopping: bool = False) -> Iterator[None]:
        """Mark the container as held by a command: observations show its earlier state, then it is inspected.

        The engine answers no inspection of a container that it starts or removes, which would delay the
        observation.
        """
        self._held[container_id] = stopping
        try:
            yield
        finally:
            self._held.pop(container_id, None)
            self._moved.add(container_id)

    def invalidate_images(self) -> None:
        """Record that a tag may refer to another image now."""
        self._images.invalidate()

    def invalidate_all(self) -> None:
        """Record that anything may have changed: events were missed, or the engine was replaced."""
        self._everything_moved = True
        self._images.invalidate()

    async def refresh(self, stack: Stack, *, full: bool) -> ObservedState:
        """See ``Engine.observe``."""
        # Concurrent observations would hide from each other what events invalidated.
        async with self._turn:
            began = time.monotonic()
            if full or not self.subscribed:
                # Without a subscription, no event reports a moved tag.
                self._images.invalidate()
            if stack.name != self._project:
                self._project = stack.name
                self._known.clear()
            moved, self._moved = self._moved, set()
            everything, self._everything_moved = self._everything_moved or full, False
            try:
                return await self._take(stack, began, moved, everything)
            except BaseException:
                self._moved |= moved
                self._everything_moved = self._everything_moved or everything
                raise

    async def _take(self, stack: Stack, began: float, moved: set[str], everything: bool) -> ObservedState:
        tags, entries = await asyncio.gather(self._images.table(stack.by_image), self.listed())
        found = await self._identity.sort(entries, stack.name)
        ours = found.ours
        stale = [
            entry
            for id, entry in ours.items()
            if not (id in self._held and id in self._known)
            and (everything or id in moved or not self._is_known(id, summary_key(entry)))
        ]
        failed = await self._inspect_all(stale)
        # Removed between the list and the inspection: absent from both.
        gone = {id for id in ours if id not in self._known and id not in failed}
        self._known = {id: known for id, known in self._known.items() if id in ours and id not in gone}
        self._starved = {id: at for id, at in self._starved.items() if id in ours}
        self._stops = {id: at for id, at in self._stops.items() if id in ours}
        self._refused = {id: count for id, count in self._refused.items() if id in ours}
        self._odd = {id: why for id, why in self._odd.items() if id in ours}
        nameless = [unreadable(e, "it has no id") for e in entries if not id_of(e) and claims(e, stack.name)]
        containers = sorted([*(known.container for known in self._known.values()), *nameless], key=_id)
        return ObservedState(
            capabilities=self._capabilities,
            containers=tuple(containers),
            images={name: id for name in stack.by_image if (id := image_named(name, tags))},
            foreign=_foreign(entries, ours),
            complete=not failed and not found.unsure,
            began=began,
            at=time.monotonic(),
            notes=(*found.notes(), *_unread_notes(containers)),
        )

    async def strangers(self, project: str) -> frozenset[str]:
        """Return the containers with labels of the project from their image; see ``Identity``. Not cached.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        found = await self._identity.sort(await self.listed(), project)
        return frozenset((*found.strangers, *found.unsure))

    async def of_project(self, project: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the listed containers that are services of the project, by id. Not cached.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        return (await self._identity.sort(await self.listed(), project)).ours

    async def listed(self) -> list[Mapping[str, Any]]:
        """Return all containers that the engine lists, of any project.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        # No label filter: a container of another project may hold a name that is needed here.
        try:
            entries = await self._http.get("/containers/json", all=True)
        except Refused as error:
            raise EngineUnavailable(f"the engine can't list containers: {error}", "list_failed") from error
        except (ValueError, RecursionError) as error:
            raise EngineUnavailable("the engine's list of containers can't be read", "list_failed") from error
        if not isinstance(entries, list):
            raise EngineUnavailable("the engine's list of containers is no list", "list_failed")
        return [entry for entry in entries if isinstance(entry, Mapping)]

    def _is_known(self, id: str, summary: tuple[object, ...]) -> bool:
        known = self._known.get(id)
        return known is not None and known.summary == summary

    async def _inspect_all(self, entries: Iterable[Mapping[str, Any]]) -> set[str]:
        """Inspect these; return the ids of containers whose state is uncertain."""
        # Wait for each one even if another fails: a late result must not overwrite a newer observation.
        results = await asyncio.gather(*(self._inspect(entry) for entry in entries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return {id for id in results if isinstance(id, str) and id}

    async def _inspect(self, entry: Mapping[str, Any]) -> str:
        id = id_of(entry)
        if self._stuck.get(id, 0.0) > time.monotonic():
            self._use_list_entry(entry)
            return ""
        try:
            async with self._slots:
                seen = await self._http.get(f"/containers/{quote(id, safe='')}/json")
            found = container(seen)
        except Refused as error:
            return self._was_refused(entry, error)
        except EngineUnavailable as error:
            if error.reason != "engine_silent":
                raise
            self._stuck[id] = time.monotonic() + _LEFT_ALONE
            self._use_list_entry(entry)
            return ""
        except (Unreadable, ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, Unreadable) else "the answer is no JSON"
            self._show_unknown(entry, f"its inspection can't be read: {why}")
            return ""
        if found.started_at <= self._starved.get(id, 0.0):
            found = dataclasses.replace(found, oom_killed=True)
        if id in self._stops:
            found = dataclasses.replace(found, stop_requested_at=self._stops[id])
        self._known[id] = _ObservedCache(summary_key(entry), found)
        if found.state is State.UNKNOWN:
            self._log_once(id, found.error)
        else:
            self._odd.pop(id, None)
        self._stuck.pop(id, None)
        self._refused.pop(id, None)
        return ""

    def _was_refused(self, entry: Mapping[str, Any], error: Refused) -> str:
        id = id_of(entry)
        if error.status == 404:
            self._known.pop(id, None)
            return ""
        self._moved.add(id)
        self._refused[id] = self._refused.get(id, 0) + 1
        if self._refused[id] < _REFUSALS:
            _log.warning("a container can't be inspected", extra={"container": id, "error": str(error)})
            return id
        self._show_unknown(entry, f"the engine refuses to describe it: {error}")
        return ""

    def _show_unknown(self, entry: Mapping[str, Any], why: str) -> None:
        """Show the container in an unknown state, and inspect it again in the next observation."""
        id = id_of(entry)
        known = self._known.get(id)
        odd = unreadable(entry, why)
        if known is not None and not odd.service:
            odd = dataclasses.replace(odd, service=known.container.service)
        self._known[id] = _ObservedCache((), odd)
        self._moved.add(id)
        self._log_once(id, why)

    def _log_once(self, id: str, why: str) -> None:
        if self._odd.get(id) != why:
            self._odd[id] = why
            _log.warning("a container can't be understood", extra={"container": id, "why": why})

    def _use_list_entry(self, entry: Mapping[str, Any]) -> None:
        """Use the state from the list, and the rest from the last inspection, if an inspection hangs."""
        id = id_of(entry)
        self._moved.add(id)
        known = self._known.get(id)
        if known is None or known.container.state is State.UNKNOWN:
            self._show_unknown(entry, "the engine does not answer questions about it")
            return
        state = state_from(entry.get("State"))
        why = known.container.error if state is not State.UNKNOWN else "its listed state has no meaning here"
        self._known[id] = _ObservedCache((), dataclasses.replace(known.container, state=state, error=why))


def _id(container: Container) -> str:
    return container.id


def _unread_notes(containers: Iterable[Container]) -> Iterator[str]:
    for one in containers:
        if one.state is State.UNKNOWN:
            yield f"container {one.name} of {one.service or 'this project'} is left alone: {one.error}"


def _foreign(entries: Iterable[Mapping[str, Any]], ours: Mapping[str, object]) -> dict[str, str]:
    names = ((name_of(entry), id_of(entry)) for entry in entries if id_of(entry) not in ours)
    return {name: id for name, id in names if name}
