"""What the state of one container means: ready, completed, crash looping, stopped by the daemon. Pure."""

from __future__ import annotations

from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import Container, Health, State
from reconciler.model.stack import Service, Stack

CRASH_LOOP_RESTARTS = 2
"""Restarts by the engine's policy that count as a crash loop."""

STABLE_SECONDS = 10.0
"""Seconds of running after which Docker considers a start successful."""

MAX_STABLE_SECONDS = 300.0

STOP_SECONDS = 300.0
"""Seconds after a signal within which an exit counts as its effect. A container may ignore the signal and
complete later. After ``docker stop`` the engine reports the stop again when the container has ended."""


def is_ready(container: Container) -> bool:
    """Whether the container is ready: running, and healthy if it has a check.

    While the engine reports ``starting``, a successful early probe is enough; later the engine's health
    state decides (DESIGN, Readiness).
    """
    if container.state is not State.RUNNING:
        return False
    health = container.health
    return (
        health is Health.NONE or health is Health.HEALTHY or (health is Health.STARTING and container.probed)
    )


def crash_loop_end(ledger: Ledger, container: Container, now: Clock) -> float | None:
    """Return the monotonic second at which a crash loop ends without another exit; None: no crash loop.

    The engine restarts the container by its policy, so it looks healthy between two exits. It counts as
    stable again once it has run twice as long as the last time, and at least as long as the engine requires
    for a successful start.
    """
    known = ledger.restarts.get(container.service)
    if known is None or known.container != container.id or len(known.times) < CRASH_LOOP_RESTARTS:
        return None
    before, last = known.times[-2:]
    if last - before > MAX_STABLE_SECONDS or container.state is not State.RUNNING:
        return None
    stable_at = last + min(MAX_STABLE_SECONDS, max(STABLE_SECONDS, 2 * (last - before)))
    return stable_at if now.mono < stable_at else None


def has_completed(stack: Stack, ledger: Ledger, service: Service, container: Container) -> bool:
    """Whether this is a one-shot that completed (CONTRACT section 2).

    A run that was stopped, or that a shutdown of the machine ended, is not complete even with code 0.
    """
    return (
        is_one_shot(stack, service)
        and container.state is State.EXITED
        and container.exit_code == 0
        and container.started_at > 0
        and ledger.cut.get(container.id) != container.started_at
        and not stopped_by_us(ledger, container)
        and not stopped_by_others(ledger, container)
    )


def is_one_shot(stack: Stack, service: Service) -> bool:
    """Whether the service completes by exiting with code 0.

    Without a restart policy it does, unless it publishes ports, dependents need it healthy, or
    ``stack.yaml`` calls it a service: 13 of 37 files of docker/awesome-compose name no policy at all.
    """
    if service.name in stack.one_shots:
        return True
    if service.restart != "no" or service.kind or service.publishes:
        return False
    return service.name not in stack.lasting


def stopped_by_us(ledger: Ledger, container: Container) -> bool:
    """Whether the daemon sent this run of the container a stop."""
    return ledger.stopped.get(container.id) == container.started_at


def stopped_by_others(ledger: Ledger, container: Container) -> bool:
    """Whether another client stopped this run of the container."""
    return ledger.halted.get(container.id) == container.started_at or stop_was_requested(container)


def stop_was_requested(container: Container) -> bool:
    """Whether the engine reports a stop request that explains the end of the last run."""
    asked = container.stop_requested_at
    return asked >= container.started_at > 0 and container.finished_at - asked <= STOP_SECONDS


def stop_reason(container: Container) -> str:
    """Return why the container does not run, as part of a sentence."""
    if container.state is State.CREATED:
        return "was created and never started"
    if container.state is not State.EXITED:
        return f"is {container.state}"
    return f"exited with code {container.exit_code}" + (", out of memory" if container.oom_killed else "")
