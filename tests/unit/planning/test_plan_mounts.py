"""Mounted files: when a container is recreated for them, and what must exist before it is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.model.ledger import BuiltFrom, Ledger, Mounted
from reconciler.model.observed import Container, HostPath, ObservedState, State
from reconciler.model.stack import Mount
from reconciler.planning.drift import DriftKind
from reconciler.planning.fingerprints import attempt_fingerprint
from reconciler.planning.mounts import MAX_SELF_WRITES, changed_mounts, current_mounts, self_write_counts
from reconciler.planning.record_observation import record_observation
from reconciler.planning.status import Phase, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service

CONF = Mount("bind", "/etc/conf", "/box/conf", create=True)
A = service("a", mounts=(CONF,))
STACK = a_stack({"main": [A]})
ON = desire(STACK, "main")
ONE = HostPath("file", "one", "1:1", 998_000.0)
WAS_ONE = Mounted("file", "one", "1:1")


def made(before: Mounted | None = WAS_ONE, **fields: Any) -> Ledger:
    mounts = {CONF.key: before} if before else {}
    return Ledger(made={"id-a": BuiltFrom("def-a", A.fields, "sha-a:1", mounts=mounts, **fields)})


def seen(source: HostPath | None, *containers: Container, **fields: Any) -> ObservedState:
    sources = {} if source is None else {"/box/conf": source}
    return look(STACK, *(containers or (container(A),)), sources=sources, **fields)


def text(observed: ObservedState, ledger: Ledger) -> str:
    return str(planned(STACK, ON, observed, ledger))


STALE = "a: stop (mounts: /etc/conf changed since it was created)"
GONE = "a: blocked (mount_missing: needs /box/conf (mounted at /etc/conf), which is gone)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (ONE, "nothing to do"),
        (ONE._replace(digest="two"), STALE),
        (ONE._replace(digest=""), "nothing to do"),
        (ONE._replace(inode="1:2"), "nothing to do"),
        (ONE._replace(inode="1:2", changed_at=999_500.0), STALE),
        (HostPath("unreadable"), "nothing to do"),
        (HostPath("missing"), "nothing to do"),
        (HostPath("folder"), "nothing to do"),
        (None, "nothing to do"),
    ],
)
def test_other_content_or_a_file_replaced_since_the_start_is_a_difference(
    source: HostPath | None, expected: str
) -> None:
    assert text(seen(source), made()) == expected


def test_the_difference_is_named_by_its_target() -> None:
    result = planned(STACK, ON, seen(ONE._replace(digest="two")), made())
    assert [(d.kind, d.fields) for d in result.drifts] == [(DriftKind.MOUNTS, ("mounts./etc/conf",))]


def test_a_recreation_for_a_file_has_phases() -> None:
    two = ONE._replace(digest="two")
    stopped = container(A, State.EXITED)
    assert text(seen(two, stopped), made()) == STALE.replace("stop", "recreate", 1)


def test_the_mounted_inode_counts_more_than_times() -> None:
    replaced = ONE._replace(inode="1:2", changed_at=999_500.0)
    new, old = {("id-a", "/etc/conf"): "1:2"}, {("id-a", "/etc/conf"): "1:1"}
    assert text(seen(replaced, held=new), made()) == "nothing to do"
    assert text(seen(replaced, held=old), made()) == STALE
    # An adopted container: its original files are unknown, but the mounted ones are observed.
    assert text(seen(replaced, held=old), made(Mounted("file", "one", "1:2"))) == STALE
    # Started after the change: it has the new file, whatever inode it shows.
    since = container(A, started_at=999_600.0)
    assert text(seen(replaced, since, held=old), made(Mounted("file", "one", "1:2"))) == "nothing to do"
    # A file system that shows another inode inside must not cause endless recreation.
    odd = {("id-a", "/etc/conf"): "9:9"}
    assert text(seen(replaced, held=odd), made(at=5.0)) == "nothing to do"


def test_an_unrecorded_container_is_adopted() -> None:
    assert text(seen(ONE), Ledger()) == "nothing to do"
    learned = record_observation(STACK, ON, seen(ONE), Ledger(), NOW, chance=0.5)
    assert learned.made["id-a"].mounts == {CONF.key: Mounted("file", "one", "1:1")}
    assert text(seen(ONE._replace(digest="two")), learned) == STALE
    # Recorded by a version that did not observe files.
    older = record_observation(STACK, ON, seen(ONE), made(None), NOW, chance=0.5)
    assert older.made["id-a"].mounts == learned.made["id-a"].mounts


def test_nothing_is_created_while_a_mounted_file_is_changing() -> None:
    moving = seen(ONE._replace(moving=True), container(A, config_hash="old"), again=1_000.5)
    waits = "a: waits (mount_changing: waits until /box/conf stops changing)"
    result = planned(STACK, ON, moving, Ledger())
    assert (str(result), result.due) == (waits, 1_000.5)
    assert str(planned(STACK, ON, replace(moving, containers=()))) == waits


@pytest.mark.parametrize("source", [HostPath("missing"), HostPath("folder")])
def test_a_running_container_is_not_stopped_while_a_mounted_file_is_missing(source: HostPath) -> None:
    for other in ({"config_hash": "old"}, {"image": "old"}, {"networks": ()}):
        ledger = Ledger(made={"id-a": BuiltFrom("old", {}, "old", mounts=made().made["id-a"].mounts)})
        result = planned(STACK, ON, seen(source, container(A, **other)), ledger)
        assert not result.steps
        block = result.services["a"].block
        assert block is not None
        assert block.reason == "mount_missing"
        assert "/box/conf" in block.message
        assert result.services["a"].ready
        summary = summarise(result, ledger, {})["a"]
        assert (summary.phase, summary.stuck) == (Phase.DEGRADED, True)


def test_a_stopped_container_is_not_started_with_a_folder_in_place_of_its_file() -> None:
    assert text(seen(HostPath("missing"), container(A, State.EXITED)), made()) == GONE


def test_a_source_that_never_was_a_file_is_created_as_compose_does() -> None:
    stopped = container(A, State.EXITED)
    assert text(seen(HostPath("missing"), stopped), made(None)).startswith("a: start")
    assert text(seen(HostPath("missing"), stopped), made(Mounted("folder"))).startswith("a: start")
    assert str(planned(STACK, ON, look(STACK, sources={"/box/conf": HostPath("missing")}))).startswith(
        "a: create"
    )


@pytest.mark.parametrize("kind", ["bind", "config", "secret"])
def test_a_source_that_compose_does_not_create_blocks_the_creation(kind: str) -> None:
    stack = a_stack({"main": [service("a", mounts=(CONF._replace(kind=kind, create=False),))]})
    result = planned(stack, desire(stack, "main"), look(stack, sources={"/box/conf": HostPath("missing")}))
    assert str(result) == GONE
    unread = look(stack, sources={"/box/conf": HostPath("unreadable")})
    assert str(planned(stack, desire(stack, "main"), unread)).startswith("a: create")


def test_a_changed_config_content_is_a_difference() -> None:
    def of(content: str) -> Any:
        mount = Mount("config", "/etc/conf", content=content)
        return a_stack({"main": [service("a", mounts=(mount,), contents=content)]})

    ledger = record_observation(of("x"), ON, look(STACK, container(A)), Ledger(), NOW, chance=0.5)
    assert str(planned(of("x"), ON, look(STACK, container(A)), ledger)) == "nothing to do"
    result = planned(of("y"), ON, look(STACK, container(A)), ledger)
    assert str(result) == STALE
    assert [d.pending for d in result.drifts] == [True]


def test_a_file_that_the_container_writes_does_not_recreate_it_endlessly() -> None:
    mount = CONF._replace(writable=True)
    own = service("a", mounts=(mount,))
    stack = a_stack({"main": [own]})
    on = desire(stack, "main")
    before = BuiltFrom(
        "def-a", own.fields, "sha-a:1", at=1.0, mounts={mount.key: Mounted("file", "0", "1:1")}
    )
    remade = 0
    for turn in range(1, 20):
        written = HostPath("file", str(turn), "1:1", 999_002.0)
        observed = look(stack, container(own), sources={"/box/conf": written})
        if not planned(stack, on, observed, Ledger(made={"id-a": before})).steps:
            break
        remade += 1
        changed = changed_mounts(own, container(own), observed, before)
        churn = self_write_counts(own, container(own), observed, before, changed)
        before = before._replace(mounts=current_mounts(own, observed), churn=churn)
    assert remade == MAX_SELF_WRITES
    # An edit an hour later is not attributed to the container.
    later = look(stack, container(own), sources={"/box/conf": HostPath("file", "x", "1:1", 1_003_000.0)})
    once_more = before._replace(churn={mount.key: 2})
    assert self_write_counts(own, container(own), later, once_more, [mount.target]) == {mount.key: 0}


def test_a_corrected_file_ends_the_back_off() -> None:
    state = ON.groups["main"]
    assert attempt_fingerprint(A, state, seen(ONE)) != attempt_fingerprint(
        A, state, seen(ONE._replace(digest="two"))
    )


def test_recorded_mounts_survive_a_restart_of_the_daemon() -> None:
    ledger = made(churn={CONF.key: 2})
    assert decode_ledger(encode_ledger(ledger), NOW) == ledger
    earlier = json.loads(encode_ledger(ledger))
    earlier["made"]["id-a"] = earlier["made"]["id-a"][:5]
    assert decode_ledger(json.dumps(earlier), NOW).made["id-a"].mounts == {}


SOURCES = st.one_of(
    st.builds(
        HostPath,
        st.just("file"),
        st.sampled_from(["", "one", "two"]),
        st.sampled_from(["1:1", "1:2"]),
        st.sampled_from([998_000.0, 999_500.0, 1_000_500.0]),
    ),
    st.sampled_from([HostPath("missing"), HostPath("folder"), HostPath("unreadable"), HostPath("other")]),
)
HELD = st.sampled_from([{}, {("id-a", "/etc/conf"): "1:1"}, {("id-a", "/etc/conf"): "9:9"}])


@settings(derandomize=True, deadline=None, max_examples=200)
@given(source=SOURCES, held=HELD)
def test_the_same_files_recreate_a_container_at_most_once(source: HostPath, held: Any) -> None:
    observed = seen(source, container(A, started_at=1_000_600.0), held=held)
    remade = BuiltFrom("def-a", A.fields, "sha-a:1", at=NOW.wall, mounts=current_mounts(A, observed))
    assert text(observed, Ledger(made={"id-a": remade})) == "nothing to do"
