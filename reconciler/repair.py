"""A service whose group is on: what differs, and the one thing to do about it now.

``plan`` calls ``judge_on`` in start order. Whatever takes several actions (a remake, a restart) is a row
of phases, each of which any pass can pick up: no step knows of the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.drift import (
    Drift,
    Kind,
    changed_mounts,
    crash_loops,
    differences,
    how_it_stopped,
    inputs_of,
    is_done,
    is_ready,
    joins_another,
    same_definition,
    same_image,
    wanted_policy,
    wants_of,
)
from reconciler.gating import (
    Gate,
    Scratch,
    held_back,
    held_by_dependents,
    must_be_remade,
    parent_restarted,
    restart_due,
    source_missing,
    source_moving,
    steps_down,
    unready,
)
from reconciler.observed import ALIVE, Action, Container, Health, State
from reconciler.stack import Service
from reconciler.verdict import Block, Step, Verdict, Wait

BEYOND_STARTING = frozenset({"network_missing", "start_left_over"})
"""Reasons why a container that ran before never starts again, while another one would (PITFALLS row 25)."""


_FAILS = "runs, but its health check fails"


def judge_on(scratch: Scratch, gate: Gate, service: Service) -> Verdict:
    """All there is to say of a service whose group is on."""
    name = service.name
    containers = scratch.found.get(name, ())
    container = scratch.kept.get(name)
    wants = wants_of(service, gate.state)
    ready = (
        container is not None
        and is_ready(container)
        and name not in scratch.stack.one_shots
        and (
            name not in scratch.ledger.restarts or crash_loops(scratch.ledger, container, scratch.now) is None
        )
    )
    if (
        container is not None
        and ready
        and len(containers) == 1
        and _is_as_wanted(scratch, gate, service, container)
    ):
        return Verdict(name, gate.group, True, True, True, container, wants)
    inputs = inputs_of(service, gate.state, scratch.observed)
    done = container is not None and is_done(scratch.stack, scratch.ledger, service, container)
    pending = scratch.ledger.settled.get(name) != wants
    drifts = differences(
        scratch.stack,
        scratch.observed,
        scratch.ledger,
        service,
        containers,
        scratch.kept,
        done=done,
        pending=pending,
    )
    verdict = Verdict(
        name,
        gate.group,
        True,
        ready,
        False,
        container,
        wants,
        inputs,
        done,
        drifts=drifts,
    )
    if gate.suspended:
        return verdict._replace(wait=suspended_wait(gate), settled=not drifts and (done or verdict.ready))
    if gate.block:
        return verdict._replace(block=gate.block, settled=False)
    verdict = _repair(scratch, gate, service, verdict, containers)
    if verdict.settled and container is not None and held_back(scratch, service, container):
        return verdict._replace(settled=False, block=_held_back(gate, verdict))
    return verdict


def _held_back(gate: Gate, verdict: Verdict) -> Block:
    changes = [d for d in verdict.drifts if d.kind in {Kind.DEFINITION, Kind.IMAGE, Kind.MOUNTS}]
    message = f"{verdict.service}: {'; '.join(d.detail for d in changes)}: waits to be accepted"
    return Block("held_back", f"{message} (`service-manager accept {gate.group}`)")


def _is_as_wanted(scratch: Scratch, gate: Gate, service: Service, container: Container) -> bool:
    # The path of nearly every service in nearly every pass, so it builds nothing.
    if gate.block or gate.suspended:
        return False
    made = scratch.ledger.made.get(container.id)
    return (
        container.name == service.container_name
        and container.networks == service.networks
        and container.restart == wanted_policy(scratch.stack, service)
        and same_definition(service, container, made)
        and same_image(container, scratch.observed.images.get(service.image), made)
        and not (service.mounts and changed_mounts(service, container, scratch.observed, made))
        and not (gate.restart_at is not None and restart_due(scratch, gate, service.name))
        and parent_restarted(scratch, service, container) is None
        and not (container.joins and joins_another(service, container, scratch.kept))
    )


def _repair(
    scratch: Scratch, gate: Gate, service: Service, verdict: Verdict, containers: Sequence[Container]
) -> Verdict:
    """What to do now about a service that is on and not, or not yet, as wanted. First match wins."""
    container = verdict.container
    if container is None:
        return _create(scratch, service, verdict)
    if container.state is State.REMOVING:
        return verdict._replace(wait=_removing())
    if container.state is State.DEAD:
        return attempt(
            scratch, verdict, step_for(scratch, service, Action.REMOVE, "stopped", "is dead", container)
        )
    if len(containers) > 1:
        return _thin_out(scratch, service, verdict, container, containers)
    if steps_down(scratch, gate, service.name):
        held = held_by_dependents(scratch, service)
        if held:
            return verdict._replace(wait=held, ready=False)
        return _stop(scratch, service, verdict, container, "restart", "a restart was asked for")
    kinds = {drift.kind for drift in verdict.drifts}
    if must_be_remade(scratch, service, container):
        cause = next(k for k in (Kind.DEFINITION, Kind.IMAGE, Kind.MOUNTS, Kind.ALTERED) if k in kinds)
        why = next(drift.detail for drift in verdict.drifts if drift.kind is cause)
        return _remake(scratch, service, verdict._replace(done=False), container, cause, why)
    if Kind.ALTERED in kinds:
        mended = _mend(scratch, service, verdict, container)
        if mended is not None:
            return mended
    if container.state is State.PAUSED:
        step = step_for(scratch, service, Action.UNPAUSE, "paused", "is paused", container)
        return attempt(scratch, verdict, step)
    if container.state is State.RESTARTING:
        return verdict._replace(wait=_looping(scratch, container, None))
    if container.state is State.RUNNING:
        return _running(scratch, service, verdict, container)
    if verdict.done:
        return verdict._replace(settled=True)
    return _start(scratch, service, verdict, container)


def _removing() -> Wait:
    return Wait("removing", "waits for the engine to finish removing it")


def _create(scratch: Scratch, service: Service, verdict: Verdict) -> Verdict:
    # Made ahead of being needed: all that is missing goes into one Compose call, and only starting
    # has to wait for others.
    absent = _fetch(scratch, service, verdict)
    if absent is not None:
        return absent
    if service.container_name in scratch.observed.foreign:
        return verdict._replace(wait=_name_taken(service))
    missing = source_missing(scratch, service, None)
    if missing is not None:
        return verdict._replace(block=missing)
    for parent in service.shares:
        if scratch.kept.get(parent) is None and parent not in scratch.creating:
            wait = Wait(
                "dependency_not_ready", f"waits for {parent}, whose network or processes it shares", (parent,)
            )
            return verdict._replace(wait=wait)
    moving = source_moving(scratch, service)
    if moving is not None:
        return verdict._replace(wait=moving)
    return attempt(
        scratch, verdict, step_for(scratch, service, Action.CREATE, "missing", "has no container", None)
    )


def _name_taken(service: Service) -> Wait:
    return Wait(
        "name_conflict",
        f"a container that is not ours holds the name {service.container_name}: rename or remove it",
    )


def _fetch(scratch: Scratch, service: Service, verdict: Verdict) -> Verdict | None:
    """A verdict that gets the image first; None where it is there already."""
    image = service.image
    if not image or image in scratch.observed.images:
        return None
    if image in scratch.claimed:
        other = scratch.claimed[image]
        return verdict._replace(wait=Wait("image", f"waits for the image {image}", (other,)))
    if service.has_build:
        action, why = Action.BUILD, f"the image {image} is not there and has to be built"
    elif service.pull_policy == "never":
        message = f"the image {image} is not there and pull_policy forbids pulling it"
        return verdict._replace(block=Block("image_unavailable", message))
    else:
        action, why = Action.PULL, f"the image {image} is not there and has to be pulled"
    scratch.claimed[image] = service.name
    return attempt(scratch, verdict, step_for(scratch, service, action, "image", why, None))


def _thin_out(
    scratch: Scratch,
    service: Service,
    verdict: Verdict,
    container: Container,
    containers: Sequence[Container],
) -> Verdict:
    """One container of a service is enough: stop what else runs, then remove it. Volumes stay."""
    others = sorted((c for c in containers if c.id != container.id), key=lambda c: (c.created_at, c.id))
    other = next((c for c in others if c.state in ALIVE), None)
    if other is None:
        other = next((c for c in others if c.state is not State.REMOVING), None)
        if other is None:
            return verdict._replace(wait=_removing())
        why = f"{other.name} is a second container"
        return attempt(scratch, verdict, step_for(scratch, service, Action.REMOVE, "duplicate", why, other))
    waits = None if container.state in ALIVE else unready(scratch, service)
    if waits:
        # What runs is stopped only when the one that is to stay could be started at once.
        return verdict._replace(wait=waits)
    why = f"{other.name} is a second container"
    return attempt(scratch, verdict, stop_for(scratch, service, other, "duplicate", why))


def _remake(
    scratch: Scratch, service: Service, verdict: Verdict, container: Container, cause: Kind, why: str
) -> Verdict:
    """Replace the container, one phase per pass: fetch, wait, stop, recreate. Never worse than before.

    Nothing that runs is stopped before its successor could be made and started at once.
    """
    missing = source_missing(scratch, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    absent = _fetch(scratch, service, verdict)
    if absent is not None:
        return absent
    moving = source_moving(scratch, service)
    if moving is not None:
        return verdict._replace(wait=moving)
    if container.state not in ALIVE:
        return attempt(scratch, verdict, step_for(scratch, service, Action.RECREATE, cause, why, container))
    waits = unready(scratch, service)
    if waits:
        return verdict._replace(wait=waits)
    return _stop(scratch, service, verdict, container, cause, why)


def _stop(
    scratch: Scratch, service: Service, verdict: Verdict, container: Container, cause: str, why: str
) -> Verdict:
    """Stop the service's own container, for it to come back; nobody may count on it from now on."""
    tried = attempt(scratch, verdict, stop_for(scratch, service, container, cause, why))
    return tried._replace(ready=False) if tried.step else tried


def _mend(scratch: Scratch, service: Service, verdict: Verdict, container: Container) -> Verdict | None:
    """Undo by hand what was done by hand, without a restart; None where a name is not to be had."""
    why = next(drift.detail for drift in verdict.drifts if drift.kind is Kind.ALTERED)
    if container.name != service.container_name:
        if service.container_name in scratch.observed.foreign:
            return verdict._replace(wait=_name_taken(service))
        step = step_for(scratch, service, Action.RENAME, "altered", why, container, service.container_name)
        return attempt(scratch, verdict, step)
    policy = wanted_policy(scratch.stack, service)
    if container.restart != policy:
        step = step_for(scratch, service, Action.UPDATE, "altered", why, container, policy)
        return attempt(scratch, verdict, step)
    return None


def _running(scratch: Scratch, service: Service, verdict: Verdict, container: Container) -> Verdict:
    parent = parent_restarted(scratch, service, container)
    if parent is not None:
        missing = source_missing(scratch, service, container)
        if missing is not None:
            return verdict._replace(block=missing)
        waits = unready(scratch, service)
        if waits:
            return verdict._replace(wait=waits)
        return _stop(scratch, service, verdict, container, "follows", f"{parent} was restarted")
    calm = crash_loops(scratch.ledger, container, scratch.now)
    if calm is not None:
        return verdict._replace(wait=_looping(scratch, container, calm))
    if container.health is Health.UNHEALTHY:
        return _unhealthy(scratch, service, verdict, container)
    if not is_ready(container):
        return verdict._replace(wait=Wait("starting", "waits for its own health check to succeed"))
    if not verdict.ready:
        return verdict._replace(wait=Wait("completing", "runs until it has done its work"))
    return verdict._replace(settled=True)


def _looping(scratch: Scratch, container: Container, calm: float | None) -> Wait:
    known = scratch.ledger.exits.get(container.service)
    code = container.exit_code
    if container.state is State.RUNNING and known is not None and known.container == container.id:
        code = known.code
    last = f", last with code {code}" if code or container.state is State.RESTARTING else ""
    return Wait("crash_looping", f"ends again and again{last}", until=calm)


def _unhealthy(scratch: Scratch, service: Service, verdict: Verdict, container: Container) -> Verdict:
    """What is done about a service that stays unhealthy, as its group says; not for ever."""
    name, now = service.name, scratch.now.mono
    policy = scratch.stack.groups[verdict.group].unhealthy
    since = scratch.ledger.unhealthy.get(name)
    if policy.action == "report":
        return verdict._replace(wait=Wait("unhealthy", _FAILS))
    due = (since.since if since else now) + policy.after
    if now < due:
        return verdict._replace(wait=Wait("unhealthy", _FAILS, until=due))
    recent = [at for at in scratch.ledger.healed.get(name, ()) if now - at < policy.window]
    if len(recent) >= policy.limit:
        tried = f"{len(recent)} attempts to mend it in the last {policy.window / 60:g} minutes"
        until = min(recent) + policy.window if recent else None
        return verdict._replace(wait=Wait("unhealthy", f"{_FAILS} still, after {tried}", until=until))
    missing = source_missing(scratch, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    waits = unready(scratch, service)
    if waits:
        return verdict._replace(wait=waits)
    why = f"its health check fails for longer than {policy.after:g} s"
    if policy.action != "recreate" or held_back(scratch, service, container):
        return _stop(scratch, service, verdict, container, Kind.UNHEALTHY, why)
    absent = _fetch(scratch, service, verdict)
    if absent is not None:
        return absent
    step = step_for(scratch, service, Action.RECREATE, Kind.UNHEALTHY, why, container)
    tried_verdict = attempt(scratch, verdict, step)
    return tried_verdict._replace(ready=False) if tried_verdict.step else tried_verdict


def _start(scratch: Scratch, service: Service, verdict: Verdict, container: Container) -> Verdict:
    missing = source_missing(scratch, service, container)
    if missing is not None:
        return verdict._replace(block=missing)
    waits = unready(scratch, service)
    if waits:
        return verdict._replace(wait=waits)
    failure = scratch.ledger.failures.get(service.name)
    if (
        failure is not None
        and failure.inputs == verdict.inputs
        and failure.reason in BEYOND_STARTING
        and container.state is not State.CREATED
    ):
        why = f"can't be started any more: {failure.error}"
        if held_back(scratch, service, container):
            return verdict._replace(block=Block("held_back", f"{why}; another one waits to be accepted"))
        return _remake(scratch, service, verdict, container, Kind.STOPPED, why)
    why = how_it_stopped(container)
    return attempt(scratch, verdict, step_for(scratch, service, Action.START, "stopped", why, container))


def judge_orphan(scratch: Scratch, name: str, containers: Sequence[Container]) -> Verdict:
    """A service that is in the files no more, with ``prune``: stop its containers, then remove them.

    Volumes stay, as ever.
    """
    nowhere = "belongs to no service of the files"
    drifts = tuple(Drift(name, Kind.ORPHAN, True, f"{c.name} {nowhere}", c.id) for c in containers)
    verdict = Verdict(name, "", False, False, False, containers[0], "gone", inputs="gone", drifts=drifts)
    container = next((c for c in containers if c.state in ALIVE), None)
    action = Action.STOP
    if container is None:
        action = Action.REMOVE
        container = next((c for c in containers if c.state is not State.REMOVING), None)
    elif container.state is State.PAUSED:
        action = Action.UNPAUSE
    if container is None:
        return verdict._replace(wait=_removing())
    why = f"{container.name} {nowhere}"
    grace = 10.0 if container.grace is None else container.grace
    return attempt(scratch, verdict, Step(name, action, "orphan", why, container.id, grace=grace))


def step_for(
    scratch: Scratch,
    service: Service,
    action: Action,
    cause: str,
    why: str,
    container: Container | None,
    value: str = "",
) -> Step:
    """The step, with what every step of this service carries."""
    return Step(
        service.name,
        action,
        str(cause),
        why,
        container.id if container else "",
        value,
        service.stop_grace,
        scratch.stack.chain[service.name],
    )


def stop_for(scratch: Scratch, service: Service, container: Container, cause: str, why: str) -> Step:
    """A step towards the container being stopped."""
    # A frozen process can't obey a signal, and engines refuse to stop a paused container.
    action = Action.UNPAUSE if container.state is State.PAUSED else Action.STOP
    return step_for(scratch, service, action, cause, why, container)


def attempt(scratch: Scratch, verdict: Verdict, step: Step) -> Verdict:
    """The verdict with the step, or with a wait where the last attempts failed too recently."""
    failure = scratch.ledger.failures.get(verdict.service)
    if failure is not None and failure.inputs == verdict.inputs and scratch.now.mono < failure.due:
        message = f"tried {failure.attempts} time{'s' if failure.attempts > 1 else ''}: {failure.error}"
        return verdict._replace(wait=Wait("back_off", message, until=failure.due))
    return verdict._replace(step=step)


def suspended_wait(gate: Gate) -> Wait:
    """Why nothing is done about a service of a suspended group."""
    suspend = gate.state.suspend
    reason = f": {suspend.reason}" if suspend and suspend.reason else ""
    return Wait("suspended", f"{gate.group} is suspended{reason}")
