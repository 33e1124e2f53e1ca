"""An unreadable container affects no other container."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.docker.http import Refused
from reconciler.engine.docker.observe import Observer
from reconciler.engine.docker.parse import Unreadable, container, name_of, state_from, summary_key, tags_of
from reconciler.errors import EngineUnavailable
from reconciler.model.observed import Container, Health, ObservedState, State
from reconciler.model.stack import Stack

STACK = Stack(name="p", groups={}, services={})


def inspection(id: str = "1", **state: Any) -> dict[str, Any]:
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": f"s{id}"}
    return {
        "Id": id,
        "Name": f"/c{id}",
        "Created": "2026-11-25T01:00:00Z",
        "Image": "sha256:1",
        "RestartCount": 0,
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "Pid": 5,
            "Error": "",
            "StartedAt": "2026-11-25T01:00:10Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": "healthy", "Log": [{"End": "2026-11-25T01:00:20Z"}]},
            **state,
        },
        "Config": {
            "Labels": labels,
            "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
            "Shell": ["/bin/sh", "-c"],
            "StopTimeout": 5,
        },
        "HostConfig": {
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "NetworkMode": "container:2",
            "IpcMode": "private",
            "PidMode": "",
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        },
        "NetworkSettings": {
            "Networks": {"n": {}},
            "Ports": {"80/tcp": [{"HostPort": "8080"}], "81/udp": None},
        },
    }


def listed(id: str, state: Any = "running") -> dict[str, Any]:
    labels = inspection(id)["Config"]["Labels"]
    return {"Id": id, "Names": [f"/c{id}"], "State": state, "Labels": labels}


class Wire:
    """An engine with two containers; ``odd`` is the response for the second."""

    def __init__(self, odd: Callable[[], Any]) -> None:
        self.odd = odd
        self.entries: list[Any] = [listed("1"), listed("2")]

    async def get(self, path: str, **_: object) -> Any:
        if path == "/images/json":
            return [7, {"Id": 3}, {"Id": "sha256:1", "RepoTags": "x", "RepoDigests": [4, "a@sha256:1"]}]
        if path == "/containers/json":
            return self.entries
        return inspection("1") if "/1/" in path else self.odd()


def by_id(observed: ObservedState) -> dict[str, Container]:
    assert observed.complete
    return {one.id: one for one in observed.containers}


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("word", "state"),
    [
        *((state.value, state) for state in State),
        ("Running", State.RUNNING),
        # Podman's own words.
        ("stopped", State.EXITED),
        ("stopping", State.RUNNING),
        ("initialized", State.CREATED),
        ("configured", State.CREATED),
        ("hibernated", State.UNKNOWN),
        ("", State.UNKNOWN),
        (None, State.UNKNOWN),
        (7, State.UNKNOWN),
        ([], State.UNKNOWN),
    ],
)
def test_a_state_word_maps_to_the_nearest_state(word: object, state: State) -> None:
    assert state_from(word) is state


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: inspection("2", Status="hibernated"), "'hibernated'"),
        (lambda: inspection("2", Status=None), "Status"),
        (lambda: inspection("2", Health="fine"), "Health"),
        (lambda: inspection("2") | {"State": None}, "State"),
        (lambda: inspection("2") | {"HostConfig": []}, "HostConfig"),
        (lambda: {"Id": "2"}, "Config"),
        (lambda: None, "no object"),
        (raising(ValueError("no JSON")), "no JSON"),
        (raising(RecursionError()), "no JSON"),
        (raising(EngineUnavailable("silent", "engine_silent")), "does not answer"),
    ],
)
async def test_an_unreadable_container_leaves_the_observation_complete(
    answer: Callable[[], Any], why: str
) -> None:
    wire = Wire(answer)
    look = Observer(wire)  # type: ignore[arg-type]
    for full in (True, False):
        seen = by_id(observed := await look.refresh(STACK, full=full))
        assert seen["1"].state is State.RUNNING
        odd = seen["2"]
        assert (odd.state, odd.service, odd.name) == (State.UNKNOWN, "s2", "c2")
        assert why in odd.error
        assert any("c2 of s2 is left alone" in note and why in note for note in observed.notes)


async def test_a_container_that_is_readable_again_is_shown_as_before() -> None:
    answers: list[Any] = [inspection("2"), inspection("2", Status="odd"), {}, inspection("2")]
    look = Observer(Wire(lambda: answers.pop(0)))  # type: ignore[arg-type]
    states = [by_id(await look.refresh(STACK, full=True))["2"].state for _ in range(4)]
    assert states == [State.RUNNING, State.UNKNOWN, State.UNKNOWN, State.RUNNING]


async def test_a_permanently_refused_inspection_makes_one_container_unknown() -> None:
    look = Observer(Wire(raising(Refused(500, "corrupt"))))  # type: ignore[arg-type]
    complete = [(await look.refresh(STACK, full=False)).complete for _ in range(4)]
    assert complete == [False, False, True, True]
    assert "corrupt" in by_id(await look.refresh(STACK, full=False))["2"].error


async def test_list_entries_that_are_not_containers_are_ignored() -> None:
    wire = Wire(lambda: inspection("2"))
    wire.entries += [None, [], {}, {"Id": 7}, {"Id": "3", "Names": None, "Labels": [], "State": {}}]
    wire.entries.append(listed("4") | {"Id": None, "Names": ["/c4"]})
    observed = await Observer(wire).refresh(STACK, full=True)  # type: ignore[arg-type]
    seen = by_id(observed)
    assert seen.keys() == {"1", "2", "?c4"}
    assert seen["?c4"].state is State.UNKNOWN


@pytest.mark.parametrize("answer", [None, {}, "x", 7])
async def test_an_invalid_list_means_that_the_engine_is_unavailable(answer: Any) -> None:
    wire = Wire(lambda: inspection("2"))
    wire.entries = answer
    with pytest.raises(EngineUnavailable):
        await Observer(wire).refresh(STACK, full=True)  # type: ignore[arg-type]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Yield the path to every value in a tree of objects and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


PLACES = places(inspection())
TIMES = st.sampled_from(
    ["9999-12-31T23:59:59-23:59", "9999-99-99T99:99:99Z", "0001-01-01T00:00:00+23:00", "2026-11-25T01:00:00Z"]
)


@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), JSON | TIMES), max_size=4),
    dropped=st.sampled_from(PLACES),
)
@settings(max_examples=300, deadline=None)
def test_an_inspection_of_any_shape_is_at_worst_unreadable(
    changes: list[tuple[tuple[Any, ...], Any]], dropped: tuple[Any, ...]
) -> None:
    seen: Any = inspection()
    for place, value in [*changes, (dropped, None)]:
        seen = _with(seen, place, copy.deepcopy(value), drop=place is dropped)
    try:
        found = container(seen)
    except Unreadable:
        return
    assert isinstance(found.state, State)
    assert isinstance(found.health, Health)
    texts = (found.id, found.name, found.service, found.image, found.restart, found.error, *found.networks)
    assert all(isinstance(text, str) for text in (*texts, *found.ports, *found.joins, *found.check))
    numbers = (found.exit_code, found.restart_count, found.pid, found.created_at, found.started_at)
    assert all(isinstance(number, int | float) for number in numbers)
    hash(found)


def _with(tree: Any, place: tuple[Any, ...], value: Any, *, drop: bool = False) -> Any:
    """Return the tree with another value at a path, or without it; unchanged if the path does not exist."""
    if not place:
        return tree if drop else value
    above = tree
    try:
        for key in place[:-1]:
            above = above[key]
        if drop:
            del above[place[-1]]
        else:
            above[place[-1]] = value
    except (KeyError, IndexError, TypeError):
        pass
    return tree


@given(
    entries=st.lists(JSON, max_size=4),
    entry=st.dictionaries(
        st.sampled_from(["Id", "Names", "Labels", "State", "Status", "ImageID", "NetworkSettings"]), JSON
    ),
)
@settings(max_examples=200, deadline=None)
def test_a_list_of_any_shape_does_not_raise(entries: list[Any], entry: dict[str, Any]) -> None:
    tags_of(entries)
    assert summary_key(entry) == summary_key(entry) or True
    name_of(entry)
