"""A small stack, a writer that keeps its state in memory, and an application over both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.audit import AuditLog
from api.metrics import Metrics
from api.settings import Lines, Preview, Previous, Settings
from reconciler.changes import Changes, Decide, GroupChange, Receipt
from reconciler.desired import Desired, GroupState, Suspension
from reconciler.errors import Mistake
from reconciler.keys import KeyRing
from reconciler.ledger import Ledger, Now
from reconciler.observed import Container, Health, Observed, State, Usage
from reconciler.plan import plan
from reconciler.progress import Progress, StepRecord
from reconciler.snapshot import EngineView, Inputs, Snapshot, Snapshots, build
from reconciler.stack import Condition, Dependency, Group, HealthCheck, Pilot, Service, Stack, Strength

WALL = 1_795_500_000.4
ENGINE = EngineView(kind="docker", version="26.1", compose="2.40.3", reachable=True, since=WALL - 900)


def a_service(name: str, *needs: str) -> Service:
    return Service(
        name=name,
        container_name=f"alpr-{name}",
        image=f"{name}:1",
        config_hash=f"hash-{name}",
        definition=f"definition-{name}",
        depends_on=tuple(Dependency(need, Condition.HEALTHY) for need in needs),
        check=HealthCheck(("true",)),
    )


def a_stack() -> Stack:
    """kafka (2 services), storage on kafka, analytics on storage, monitoring alone; tempo unmanaged."""
    services = [
        a_service("zookeeper"),
        a_service("kafka", "zookeeper"),
        a_service("timescaledb"),
        a_service("metabase", "timescaledb"),
        a_service("loki"),
        a_service("tempo"),
    ]
    groups = [
        Group(name="kafka", services=("zookeeper", "kafka"), description="Events", memory=700_000_000),
        Group(name="storage", services=("timescaledb",), depends_on={"kafka": Strength.ON}),
        Group(name="analytics", services=("metabase",), depends_on={"storage": Strength.READY}),
        Group(name="monitoring", services=("loki",)),
    ]
    return Stack(
        name="alpr",
        groups={group.name: group for group in groups},
        services={service.name: service for service in services},
        pilot=Pilot(groups=("kafka",), memory=500_000_000),
    )


def desired(generation: int = 1, /, **states: bool | GroupState) -> Desired:
    """Every group of ``a_stack`` off but those named."""
    found = {name: GroupState(on=False) for name in a_stack().groups}
    found |= {n: s if isinstance(s, GroupState) else GroupState(on=s) for n, s in states.items()}
    return Desired(groups=found, generation=generation, revision=f"revision-{generation}")


def running(name: str) -> Container:
    return Container(
        id=f"id-{name}",
        name=f"alpr-{name}",
        service=name,
        state=State.RUNNING,
        health=Health.HEALTHY,
        image=f"sha-{name}",
        config_hash=f"hash-{name}",
        started_at=WALL - 100,
        ports=("9092:9092",),
    )


def a_snapshot(
    wanted: Desired,
    *containers: Container,
    engine: EngineView = ENGINE,
    progress: Progress | None = None,
    errors: tuple[Mistake, ...] = (),
    usage: dict[str, Usage] | None = None,
) -> Snapshot:
    stack = a_stack()
    images = {service.image: f"sha-{service.name}" for service in stack.services.values()}
    observed = Observed(containers=containers, images=images, complete=engine.reachable)
    now, ledger = Now(wall=WALL, mono=1000.0), Ledger()
    return build(
        Inputs(
            stack=stack,
            desired=wanted,
            observed=observed,
            ledger=ledger,
            plan=plan(stack, wanted, observed, ledger, now),
            progress=progress or Progress(generation=wanted.generation, total=1, began_at=WALL),
            engine=engine,
            now=now,
            usage=usage or {},
            errors=errors,
            observed_generation=wanted.generation - 1,
            accepted_at=WALL,
        )
    )


def a_step(service: str, state: str = "running", error: str = "") -> StepRecord:
    return StepRecord(service, "start", state, 1, error, WALL, 0.0, "stopped")


@dataclass
class FakeWriter:
    """Carries changes out on a ``Desired`` in memory, and publishes as the loop does at acceptance."""

    snapshots: Snapshots
    desired: Desired
    refuse: Exception | None = None
    written: list[tuple[str, str]] = field(default_factory=list)
    changes: Changes = field(default_factory=dict)

    async def write(self, decide: Decide, *, author: str, reason: str, source: str = "") -> Receipt:
        if self.refuse is not None:
            raise self.refuse
        changes = decide(a_stack(), self.desired)
        self.changes = changes
        if changes:
            self.written.append((author, reason))
            groups = {n: edited(s, changes[n]) if n in changes else s for n, s in self.desired.groups.items()}
            self.desired = replace(self.desired, groups=groups, generation=self.desired.generation + 1)
            self.snapshots.publish(a_snapshot(self.desired))
        suspended = tuple(n for n, state in self.desired.groups.items() if state.suspended(WALL))
        return Receipt(self.desired.generation, bool(changes), tuple(changes), suspended)


def edited(state: GroupState, change: GroupChange) -> GroupState:
    """A group's state after a change, as every writer must understand it."""
    suspend = Suspension() if change.suspend is True else change.suspend
    return replace(
        state,
        on=state.on if change.on is None else change.on,
        force=state.force if change.force is None else change.force,
        restarted_at=state.restarted_at if change.restarted_at is None else change.restarted_at,
        suspend=state.suspend if suspend is None else suspend or None,
        accepted_at=state.accepted_at if change.accepted_at is None else change.accepted_at,
    )


@dataclass
class World:
    """An application and what it stands on."""

    app: FastAPI
    client: httpx.AsyncClient
    snapshots: Snapshots
    writer: FakeWriter


@asynccontextmanager
async def a_world(
    wanted: Desired | None = None,
    *containers: Container,
    snapshot: Snapshot | None = None,
    settings: Settings | None = None,
    preview: Preview | None = None,
    logs: Lines | None = None,
    previous: Previous | None = None,
    metrics: bool = False,
    keys: KeyRing | None = None,
    audit: AuditLog | None = None,
    client: tuple[str, int] = ("127.0.0.1", 50000),
) -> AsyncIterator[World]:
    wanted = wanted or desired()
    snapshots = Snapshots()
    snapshots.publish(snapshot or a_snapshot(wanted, *containers))
    writer = FakeWriter(snapshots, wanted)
    settings = settings or Settings(clock=lambda: WALL)
    app = create_app(
        intake=writer,
        snapshots=snapshots,
        settings=settings,
        preview=preview,
        logs=logs,
        previous=previous,
        metrics=Metrics(snapshots, clock=settings.clock) if metrics else None,
        keys=keys,
        audit=audit,
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as asking:
        yield World(app, asking, snapshots, writer)
        await app.state.broadcast.aclose()


async def others() -> None:
    """Give every other task its turns, until each waits for something that only the test can bring."""
    for _ in range(50):
        await asyncio.sleep(0)
