"""A changed project name is held back while it would leave something behind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from reconciler.controller.ledger_codec import decode_ledger, encode_ledger
from reconciler.model.desired import Desired, GroupState
from reconciler.model.ledger import BuiltFrom, Ledger, Named, Renaming
from reconciler.model.observed import Container, LeftBehind, ObservedState, State
from reconciler.planning.project_rename import REASON, former_name, is_new_name, record_rename, warnings
from reconciler.planning.status import outcome, summarise
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.control_loop import ONE, up, virtual

WEB, JOB, OFF = service("web"), service("job"), service("off")
FILES = ("/srv/app/compose.yaml",)
STACK = replace(a_stack({"a": [WEB], "b": [JOB], "c": [OFF]}), name="new", files=FILES)
LEFT = LeftBehind("old", ("old-web-1",), ("old_data", "old_logs"))
BEFORE = Ledger(named=Named("old", FILES))
HELD = replace(BEFORE, renaming=Renaming("new", NOW.wall))
ON = desire(STACK, "a", "b")


def seen(*containers: Container, left: tuple[LeftBehind, ...] = (LEFT,)) -> ObservedState:
    return look(STACK, *containers, left=left)


def after(
    ledger: Ledger, *containers: Container, desired: Desired = ON, **more: tuple[LeftBehind, ...]
) -> Ledger:
    return record_rename(STACK, desired, seen(*containers, **more), ledger, NOW)


def accepted(*groups: str, at: float = NOW.wall) -> Desired:
    states = {name: GroupState(on=True, accepted_at=at if name in groups else None) for name in ("a", "b")}
    return desire(STACK, **states)


def test_nothing_is_created_under_the_new_name_and_the_message_has_a_remedy() -> None:
    ledger = after(BEFORE)
    assert ledger == HELD
    plan = planned(STACK, ON, seen(), ledger)
    assert plan.steps == ()
    assert {one.block.reason for one in plan.services.values() if one.block} == {REASON}
    assert all(drift.pending for drift in plan.drifts)
    summaries = summarise(plan, ledger, {})
    assert outcome(summaries.values()) == "degraded"
    for told in (summaries["web"].message, *warnings(STACK, {"a": True, "c": False}, seen(), ledger)):
        assert "1 container (old-web-1) and 2 volumes (old_data, old_logs) of the project old" in told
        assert "`name: old`" in told
        assert "docker compose -p old down" in told
        assert "service-manager accept a" in told


@pytest.mark.parametrize("state", [State.CREATED, State.EXITED])
def test_nothing_is_started_under_the_new_name(state: State) -> None:
    ledger = after(BEFORE, container(WEB, state))
    assert ledger == HELD
    assert planned(STACK, ON, seen(container(WEB, state)), ledger).steps == ()


def test_each_group_takes_the_new_name_when_it_is_accepted() -> None:
    desired = accepted("a")
    assert after(HELD, desired=desired) == HELD
    assert [step.service for step in planned(STACK, desired, seen(), HELD).steps] == ["web"]
    settled = after(HELD, container(WEB), desired=accepted("a", "b"))
    assert settled == Ledger(named=Named("new", FILES))
    # Groups that are off and later observations do not matter any more.
    assert not is_new_name(STACK, settled)
    plan = planned(STACK, desire(STACK, "a", "b", "c"), look(STACK, container(WEB)), settled)
    assert [step.service for step in plan.steps] == ["job", "off"]


def test_earlier_and_future_acceptances_do_not_cover_the_name() -> None:
    for at in (NOW.wall - 60, NOW.wall + 60):
        assert after(HELD, desired=accepted("a", "b", at=at)) == HELD
        assert planned(STACK, accepted("a", "b", at=at), seen(), HELD).steps == ()


def test_without_leftovers_the_new_name_is_established() -> None:
    for ledger in (Ledger(), BEFORE, HELD):
        assert after(ledger, left=()) == Ledger(named=Named("new", FILES))


def test_restoring_the_former_name_clears_the_renaming() -> None:
    stack = replace(STACK, name="old")
    assert record_rename(stack, ON, look(stack, container(WEB)), HELD, NOW) == BEFORE
    assert planned(stack, ON, look(stack, container(WEB), container(JOB)), HELD).steps == ()


@pytest.mark.parametrize(
    ("ledger", "own"),
    [
        (Ledger(), [container(WEB)]),
        (Ledger(made={"id-web": BuiltFrom("", {}, "")}), [container(WEB, State.EXITED, id="id-web")]),
    ],
)
def test_a_running_stack_is_adopted_though_another_has_the_same_files(
    ledger: Ledger, own: list[Container]
) -> None:
    assert after(ledger, *own).renaming is None
    assert after(ledger, *own).named == Named("new", FILES)


def test_a_stack_first_observed_beside_another_is_held_back() -> None:
    assert after(Ledger()).renaming == Renaming("new", NOW.wall)


def test_containers_under_the_new_name_are_repaired_and_the_rest_is_a_warning() -> None:
    ledger = after(BEFORE, container(WEB))
    assert ledger.renaming == Renaming("new", NOW.wall, held=False)
    observed = seen(container(WEB, State.EXITED))
    assert {step.service for step in planned(STACK, ON, observed, ledger).steps} == {"web", "job"}
    (told,) = warnings(STACK, {"a": True}, observed, ledger)
    assert "old-web-1" in told
    assert after(ledger, container(WEB), left=()).renaming is None
    assert after(ledger, container(WEB), desired=accepted("a", "b")).renaming is None


def test_the_state_directory_of_another_stack_does_not_count() -> None:
    assert former_name(STACK, BEFORE) == "old"
    assert former_name(STACK, Ledger(named=Named("old", ("/elsewhere/compose.yaml",)))) == ""
    assert former_name(STACK, Ledger()) == ""


def test_the_name_is_stored_and_absent_in_ledgers_of_earlier_versions() -> None:
    content = encode_ledger(replace(HELD, renaming=Renaming("new", 5.0, held=False)))
    assert decode_ledger(content, NOW).named == Named("old", FILES)
    assert decode_ledger(content, NOW).renaming == Renaming("new", 5.0, held=False)
    earlier = json.loads(content)
    del earlier["named"], earlier["renaming"]
    ledger = decode_ledger(json.dumps(earlier), NOW)
    assert (ledger.named, ledger.renaming) == (None, None)


@virtual
async def test_the_loop_holds_back_a_new_name_until_it_is_accepted() -> None:
    old = replace(ONE, files=FILES)
    named = {name: replace(one, container_name=f"other-{name}") for name, one in old.services.items()}
    new = replace(old, name="other", services=named)
    b = await up(old)
    (first,) = b.engine.containers()
    b.want(desire(new, "main"), new)
    await asyncio.sleep(300)
    assert b.engine.containers() == (first,)
    assert b.snapshots.current.groups["main"].reason == REASON
    assert "kafka" in b.snapshots.current.warnings[0]
    await b.crash()
    b.ledger = b.loop.ledger
    b.begin()
    b.want(desire(new, "main"), new)
    await asyncio.sleep(300)
    assert b.engine.containers() == (first,)
    now = b.engine._wall()
    b.want(desire(new, main=GroupState(on=True, accepted_at=now)), new)
    await b.converged()
    assert len(b.engine.containers()) == 2
    assert b.engine.up() == {"kafka"}
    assert b.snapshots.current.warnings == ()
    # Renamed back: the old containers are adopted, and a warning lists those of the new name.
    b.want(desire(old, "main"), old)
    await b.converged()
    assert len(b.engine.containers()) == 2
    assert "of the project other" in b.snapshots.current.warnings[0]
    # Not ``end``: the recorder knows one project only and would report a duplicate.
    await b.crash()
    await b.engine.close()
