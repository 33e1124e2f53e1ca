"""Builds the snapshot of one pass from the executed plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.controller.progress import Progress
from reconciler.controller.snapshot import EngineView, GroupView, ServiceView, Snapshot
from reconciler.errors import Mistake
from reconciler.model.desired import Desired
from reconciler.model.ledger import Clock, ContainerExit, Ledger
from reconciler.model.ledger_updates import expected_start_time
from reconciler.model.observed import ALIVE, Action, Container, ObservedState, Usage
from reconciler.model.stack import Stack
from reconciler.model.units import format_time
from reconciler.planning import project_rename
from reconciler.planning.planner import Plan, ServicePlan
from reconciler.planning.status import CONVERGED, Phase, ServiceStatus, of_group, outcome, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs of a snapshot, collected by the loop."""

    stack: Stack
    desired: Desired
    observed: ObservedState
    ledger: Ledger
    plan: Plan
    progress: Progress
    engine: EngineView
    now: Clock
    in_flight: Mapping[str, Action] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    errors: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()
    observed_generation: int = 0
    accepted_at: float = 0.0


def build(inputs: Inputs, summaries: Mapping[str, ServiceStatus] | None = None) -> Snapshot:
    """Build the snapshot of one pass. Pure; ``SnapshotPublisher.publish`` sets ``serial``."""
    if summaries is None:
        summaries = summarise(inputs.plan, inputs.ledger, inputs.in_flight)
    stack = inputs.stack
    groups = {name: _group(inputs, name, summaries) for name in stack.groups}
    containers = {c.service: c for c in inputs.observed.containers}
    unmanaged = tuple(
        ServiceView(name=name, **_container_fields(name, containers.get(name), inputs))
        for name in stack.unmanaged
    )
    known = inputs.engine.reachable and inputs.plan.complete
    pilot_ready = bool(stack.pilot.groups) and all(
        groups[name].desired and all(s.ready or s.done or not s.replicas for s in groups[name].services)
        for name in stack.pilot.groups
    )
    return Snapshot(
        at=inputs.now.wall,
        stack=stack.name,
        generation=inputs.desired.generation,
        revision=inputs.desired.revision,
        commit=inputs.desired.commit,
        accepted_at=inputs.accepted_at,
        observed_generation=inputs.observed_generation,
        converged=known and outcome(summaries.values()) == "converged",
        pilot_ready=known and pilot_ready,
        pilot_groups=stack.pilot.groups,
        pilot_memory=stack.pilot.memory,
        groups=groups,
        unmanaged=unmanaged,
        orphans=tuple(c.name for c in inputs.plan.orphans),
        engine=inputs.engine,
        errors=inputs.errors,
        warnings=(
            *stack.warnings,
            *inputs.warnings,
            *_future_times(inputs),
            *_rename_warnings(inputs),
            *inputs.observed.notes,
        ),
        drifts=inputs.plan.drifts,
        steps=inputs.plan.steps,
        plan=str(inputs.plan),
        progress=inputs.progress,
    )


def _future_times(inputs: Inputs) -> Iterator[str]:
    """Warn about future times in the files: intended, or written while the clock was ahead."""
    for name, state in inputs.desired.groups.items():
        for key, at in (("restarted_at", state.restarted_at), ("accepted_at", state.accepted_at)):
            if at is not None and at > inputs.now.wall:
                yield f"{name}: {key} is in the future, and nothing is done about it before {format_time(at)}"


def _rename_warnings(inputs: Inputs) -> tuple[str, ...]:
    states = {name: state.on for name, state in inputs.desired.groups.items()}
    return project_rename.warnings(inputs.stack, states, inputs.observed, inputs.ledger)


def _group(inputs: Inputs, name: str, summaries: Mapping[str, ServiceStatus]) -> GroupView:
    group, state = inputs.stack.groups[name], inputs.desired.groups[name]
    services = tuple(_service(inputs, service, summaries) for service in group.services)
    running = sum(1 for s in services if s.status in ALIVE)
    up = sum(1 for s in services if s.up)
    suspended = state.suspended(inputs.now.wall)
    summary = of_group(((s, summaries.get(s, CONVERGED)) for s in group.services), suspended=suspended)
    if not inputs.plan.complete and summary.phase is Phase.CONVERGED:
        summary = ServiceStatus(Phase.WAITING, "engine_unreachable", "waits for the engine to answer")
    suspend = state.suspend if suspended else None
    return GroupView(
        name=name,
        description=group.description,
        desired=state.on,
        force=state.force,
        status="stopped" if not running else "running" if up == len(services) else "partial",
        phase=str(summary.phase),
        reason=summary.reason,
        message=summary.message,
        services=services,
        running=running,
        memory=sum(s.memory or 0 for s in services),
        estimate=group.memory,
        depends_on={n: str(strength) for n, strength in group.depends_on.items()},
        dependents=inputs.stack.group_dependents[name],
        suspended=suspended,
        suspended_until=suspend.until if suspend else None,
        suspend_reason=suspend.reason if suspend else "",
    )


def _service(inputs: Inputs, name: str, summaries: Mapping[str, ServiceStatus]) -> ServiceView:
    group = inputs.stack.group_of[name]
    service_plan = inputs.plan.services.get(name)
    if service_plan is None:
        container = next((c for c in inputs.observed.containers if c.service == name), None)
        return ServiceView(name=name, group=group, **_container_fields(name, container, inputs))
    summary = summaries[name]
    wait = service_plan.wait
    retry = wait.until - inputs.now.mono + inputs.now.wall if wait and wait.until is not None else None
    return ServiceView(
        name=name,
        group=group,
        ready=service_plan.ready,
        done=service_plan.done,
        wanted=service_plan.wanted,
        phase=str(summary.phase),
        reason=summary.reason,
        message=summary.message,
        waits_for=wait.on if wait else (),
        step=str(inputs.in_flight.get(name, "")),
        drift=tuple(str(d.kind) for d in service_plan.drifts if not d.pending),
        last_error=_last_error(inputs, service_plan),
        expected=expected_start_time(inputs.ledger, name),
        # Whole seconds: clock jitter would otherwise be a change in every pass.
        retry_at=round(retry) if retry is not None else None,
        alive=sum(1 for one in service_plan.units if one.container and one.container.state in ALIVE),
        replicas=service_plan.replicas,
        **_container_fields(name, service_plan.container, inputs) | _replica_usage(service_plan, inputs),
    )


def _replica_usage(service_plan: ServicePlan, inputs: Inputs) -> dict[str, Any]:
    """Sum memory and CPU over the containers of a service with several replicas; {} for any other."""
    ids = [one.container.id for one in service_plan.units if one.container and one.container.state in ALIVE]
    used = [usage for id_ in ids if (usage := inputs.usage.get(id_))]
    return {"memory": sum(u.memory for u in used), "cpu": sum(u.cpu for u in used)} if used else {}


def _last_error(inputs: Inputs, service_plan: ServicePlan) -> str:
    """Return the most recent error of all replicas."""
    ledger = inputs.ledger

    def last_trouble(one: ServicePlan) -> float:
        failure, end = ledger.failures.get(one.service), ledger.exits.get(one.service)
        return max(failure.at if failure else 0.0, end.finished_at if end else 0.0)

    for one in sorted(service_plan.units or (service_plan,), key=last_trouble, reverse=True):
        error = _unit_error(inputs, one.service, one.container)
        if error:
            return error
    return ""


def _unit_error(inputs: Inputs, name: str, container: Container | None) -> str:
    failure = inputs.ledger.failures.get(name)
    if (
        container is not None
        and container.oom_killed
        and container.state in ALIVE
        # A failure from before the start belongs to an earlier run.
        and (failure is None or failure.at < container.started_at)
    ):
        return "out of memory: the kernel killed a process in the container; the container still runs"
    if failure:
        return failure.error
    return _last_exit(inputs.ledger.exits.get(name))


def _last_exit(end: ContainerExit | None) -> str:
    """Describe the last exit that the daemon did not cause; it stays visible after the repair."""
    if end is None:
        return ""
    at = f" at {format_time(end.finished_at, 'seconds')}" if end.finished_at else ""
    why = ", out of memory" if end.oom_killed else ""
    return f"exited with code {end.code}{why}{at}"


def _container_fields(name: str, container: Container | None, inputs: Inputs) -> dict[str, Any]:
    """Return the fields of ``ServiceView`` that come from the container, or from the stack without one."""
    service = inputs.stack.services[name]
    if container is None:
        return {"container": service.container_name, "image": service.image}
    usage = inputs.usage.get(container.id) if container.state in ALIVE else None
    return {
        "container": container.name,
        "id": container.id,
        "status": str(container.state),
        "health": str(container.health),
        "image": service.image,
        "started_at": container.started_at if container.state in ALIVE else 0.0,
        "exit_code": container.exit_code,
        "restart_count": container.restart_count,
        "ports": container.ports,
        "memory": usage.memory if usage else None,
        "cpu": usage.cpu if usage else None,
    }
