"""Containers that follow a parent container, and orphans with and without ``prune``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model.ledger import Ledger
from reconciler.model.observed import Action, Container, ObservedState, State
from reconciler.planning.drift import DriftKind
from reconciler.planning.planner import plan
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, planned, service
from tests.support.fixtures.control_loop import up, virtual
from tests.support.fixtures.recording_engine import LoopHarness, bench

VPN = service("vpn")
APP = service("app", "vpn:restart", shares=("vpn",), networks=())
TIED = a_stack({"main": [VPN, APP]})
ON = desire(TIED, "main")


def app(state: State = State.RUNNING, **fields: Any) -> Container:
    return container(APP, state, **{"joins": ("id-vpn",), **fields})


def text(*containers: Container) -> str:
    return str(planned(TIED, ON, look(TIED, *containers)))


GONE = "altered: was created for a container of vpn that is gone"


def test_a_container_that_shares_a_network_is_recreated_after_its_parent_was() -> None:
    assert text(container(VPN), app()) == "nothing to do"
    new = container(VPN, id="new")
    assert text(new, app()) == f"app: stop ({GONE})"
    assert text(new, app(State.EXITED)) == f"app: recreate ({GONE})"
    result = planned(TIED, ON, look(TIED, new, app()))
    assert [(d.kind, d.fields) for d in result.drifts] == [(DriftKind.ALTERED, ("shares",))]


def test_it_is_not_stopped_before_the_new_parent_runs() -> None:
    made = container(VPN, State.CREATED, id="new")
    assert "app: waits (dependency_not_ready: waits for vpn to start)" in text(made, app())


def test_nothing_is_created_while_its_parent_is_missing() -> None:
    gone = look(TIED, app(State.EXITED), images={"app:1": "sha-app:1"})
    assert "app: waits (dependency_not_ready: waits for vpn to start)" in str(planned(TIED, ON, gone))
    neither = look(TIED, images={"app:1": "sha-app:1"})
    assert "app: waits (dependency_not_ready: waits for vpn, whose network" in str(planned(TIED, ON, neither))
    # One Compose call creates both in order.
    assert [s.action for s in planned(TIED, ON, look(TIED)).steps] == [Action.CREATE, Action.CREATE]


def test_a_restart_of_the_parent_causes_a_restart_not_a_recreation() -> None:
    assert text(container(VPN, started_at=999_500.0), app()) == "app: stop (follows: vpn was restarted)"


BACKUP = service("backup", "vpn", volumes_from=("vpn",))
DRAWING = a_stack({"main": [VPN, BACKUP]})


def test_a_user_of_volumes_is_recreated_after_its_source_and_not_restarted_with_it() -> None:
    """Compose recreates it too, since the definition has the id of the other container."""

    def drawn(*containers: Container) -> str:
        return str(planned(DRAWING, desire(DRAWING, "main"), look(DRAWING, *containers)))

    backup = container(BACKUP, borrowed=(("volumes_from", "id-vpn"), ("volumes_from", "some-other")))
    assert drawn(container(VPN), backup) == "nothing to do"
    assert drawn(container(VPN, started_at=999_500.0), backup) == "nothing to do"
    assert drawn(container(VPN, id="new"), backup) == f"backup: stop ({GONE})"
    # An engine that does not report what a container uses: nothing is known, nothing is done.
    assert drawn(container(VPN, id="new"), container(BACKUP)) == "nothing to do"


@virtual
async def test_a_user_of_volumes_is_recreated_once_per_recreation_of_its_source() -> None:
    b = await up(DRAWING)
    b.engine.drop(b.engine.containers("vpn")[0].id)
    await b.until(lambda s: not s.converged)
    await b.converged()
    (new,) = b.engine.containers("vpn")
    (backup,) = b.engine.containers("backup")
    assert backup.borrowed == (("volumes_from", new.id),)
    assert b.engine.up() == {"vpn", "backup"}
    await b.end()


@virtual
async def test_an_external_recreation_of_a_parent_is_followed_to_the_end() -> None:
    b = await up(TIED)
    old = b.engine.containers("vpn")[0]
    b.engine.drop(old.id)
    await b.until(lambda s: not s.converged)
    await b.converged()
    new = b.engine.containers("vpn")[0]
    assert new.id != old.id
    assert b.engine.containers("app")[0].joins == (new.id,)
    assert b.engine.up() == {"vpn", "app"}
    await b.end()


@pytest.mark.pitfall(36)
@virtual
@pytest.mark.parametrize("jump", [-315_000_000.0, -3600.0, 3600.0])
async def test_a_parents_restart_is_followed_once_whatever_the_clock_shows(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = await up(TIED)
    jumped(b, jump, monkeypatch)
    for ended, orders in (("app", ["app start"]), ("vpn", ["vpn start", "app stop", "app start"])):
        for _ in range(2):
            before = len(b.engine.orders)
            b.engine.kill(ended)
            await b.until(lambda s: not s.converged)
            await b.converged()
            await asyncio.sleep(200)
            assert [f"{c.services[0]} {c.action}" for _, c in b.engine.orders[before:]] == orders
    await b.end()


def jumped(b: LoopHarness, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = b.engine.wall
    for target in (b.engine, b.loop):
        monkeypatch.setattr(target, "_wall", lambda: wall() + seconds)
    monkeypatch.setattr(b.engine, "wall", lambda: wall() + seconds)


def orders_of(b: LoopHarness, service: str, since: int = 0) -> list[str]:
    return [str(c.action) for _, c in b.engine.orders[since:] if service in c.services]


TWO = a_stack(
    {
        "first": [service("a")],
        "second": [service("b")],
        "last": [service("c", "a:restart", "b:restart")],
    }
)


@pytest.mark.pitfall(36)
@virtual
async def test_parents_that_only_seem_younger_cause_no_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    b = await up(TWO, "first", "second")
    await asyncio.sleep(3000)
    jumped(b, -7200.0, monkeypatch)
    b.want(desire(TWO, "first", "second", "last"))
    await b.converged()
    await asyncio.sleep(600)
    assert orders_of(b, "c") == ["create", "start"]
    # Both parents exit together, and the clock is set back while the child is down.
    b.engine.kill("a")
    b.engine.kill("b")
    since = len(b.engine.orders)
    await b.until(lambda s: not s.converged)
    jumped(b, -7200.0, monkeypatch)
    await b.converged()
    await asyncio.sleep(600)
    assert orders_of(b, "c", since).count("start") <= 2
    assert b.engine.up() == {"a", "b", "c"}
    await b.end()


@pytest.mark.pitfall(36)
@virtual
@pytest.mark.parametrize("jump", [-7200.0, 0.0])
async def test_a_parent_that_starts_later_is_followed_whatever_the_clock_shows(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = await up(TWO, "first", "last")
    jumped(b, jump, monkeypatch)
    since = len(b.engine.orders)
    b.want(desire(TWO, "first", "second", "last"))
    await b.converged()
    assert orders_of(b, "c", since) == ["stop", "start"]
    since = len(b.engine.orders)
    b.engine.kill("b")
    await b.until(lambda s: not s.converged)
    await b.converged()
    await asyncio.sleep(600)
    assert orders_of(b, "c", since) == ["stop", "start"]
    await b.end()


# --- orphans --------------------------------------------------------------------------------------

OLD = service("old")
KEEP = a_stack({"main": [VPN]}, service("stray"))
PRUNE = replace(KEEP, prune=True)


def orphans(*containers: Container, prune: bool = True) -> str:
    stack = PRUNE if prune else KEEP
    return str(planned(stack, desire(stack, "main"), look(stack, container(VPN), *containers)))


def test_orphans_are_left_alone_without_prune() -> None:
    assert orphans(container(OLD), prune=False) == "old: orphan old"


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (State.RUNNING, "stop"),
        (State.RESTARTING, "stop"),
        (State.PAUSED, "unpause"),
        (State.EXITED, "remove"),
        (State.CREATED, "remove"),
        (State.DEAD, "remove"),
    ],
)
def test_an_orphan_is_stopped_then_removed(state: State, action: str) -> None:
    assert orphans(container(OLD, state)) == f"old: {action} (orphan: old belongs to no service in the files)"


def test_an_orphan_stops_within_its_own_grace_period() -> None:
    result = planned(PRUNE, desire(PRUNE, "main"), look(PRUNE, container(VPN), container(OLD, grace=90.0)))
    assert [step.grace for step in result.steps] == [90.0]
    assert [(d.kind, d.pending) for d in result.drifts] == [(DriftKind.ORPHAN, True)]


@virtual
async def test_pruning_removes_all_orphans_and_nothing_else() -> None:
    b = bench(PRUNE)
    b.engine.add(container(OLD, id="one"))
    b.engine.add(container(OLD, State.EXITED, id="two", name="old-2"))
    b.engine.add(container(PRUNE.services["stray"], id="stray"))
    b.want(desire(PRUNE, "main"))
    await b.converged()
    assert {c.service for c in b.engine.containers()} == {"vpn", "stray"}
    assert b.engine.log(Action.STOP) == ["stop old"]
    assert b.seen.orphans == ()
    await b.end()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    states=st.lists(st.sampled_from(list(State)), max_size=4),
    prune=st.booleans(),
    complete=st.booleans(),
)
def test_only_orphans_are_pruned(states: list[State], prune: bool, complete: bool) -> None:
    stack = replace(KEEP, prune=prune)
    others = [container(OLD, s, id=f"old{n}", name=f"old{n}") for n, s in enumerate(states)]
    stray = container(stack.services["stray"], State.EXITED)
    seen: ObservedState = look(stack, container(VPN), stray, *others, complete=complete)
    result = plan(stack, desire(stack, "main"), seen, Ledger(), NOW)
    assert {s.service for s in result.steps} <= ({"old"} if prune and complete else set())
    assert all(s.container.startswith("old") for s in result.steps)
