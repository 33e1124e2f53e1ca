"""What the daemon does, in the words of the audit log: steps, generations, changes, its own life.

Only names and words of ours go in: no file contents, no headers, no environment. Error texts come from the
engine and are cut to a sane length where they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from reconciler.audit.chain import AuditEvent
from reconciler.controller.progress import Progress
from reconciler.errors import EngineError, EngineUnavailable, Mistake, OutcomeUnknown
from reconciler.model.desired import Desired
from reconciler.model.observed import Action
from reconciler.model.stack import Stack
from reconciler.planning.planner import Step

DAEMON = "daemon"
LOOP = "loop"

Target = tuple[Stack, Desired]
Tell = Callable[[AuditEvent], object]

_IMAGES = frozenset({Action.PULL, Action.BUILD})


class _Sent(NamedTuple):
    step: Step
    at: float
    generation: int
    groups: tuple[str, ...]


class StepRecorder:
    """Listens to the loop's hooks: one entry per finished step, one per end of a generation.

    ``tell`` records a fact and returns at once, ``target`` is what the loop converges to, ``wall`` gives
    the time of day in seconds.
    """

    def __init__(self, tell: Tell, target: Callable[[], Target | None], wall: Callable[[], float]) -> None:
        self._tell = tell
        self._target = target
        self._wall = wall
        self._sent: dict[str, _Sent] = {}

    def on_step(self, step: Step, error: EngineError | None, over: bool) -> None:
        """A step was sent, or came back (``daemon_stopped``)."""
        if not over:
            self._sent[step.key] = self._noted(step)
            return
        sent = self._sent.pop(step.key, None) or self._noted(step)
        if error is None:
            result, message = "done", f"{step.why}; took {max(0.0, self._wall() - sent.at):.1f} s"
        elif isinstance(error, OutcomeUnknown | EngineUnavailable):
            result, message = "unknown", f"{step.why}; {error}"
        else:
            result, message = "failed", f"{step.why}; {error}"
        self._tell(self._fact(sent, result, message))

    def on_outcome(self, progress: Progress) -> None:
        """A generation came to an end, or to another one."""
        self._tell(
            AuditEvent(
                "generation_end",
                target=str(progress.generation),
                result=progress.state,
                user=LOOP,
                reason=progress.reason,
                message=progress.message,
                generation=progress.generation,
                at=self._wall(),
            )
        )

    def close(self) -> None:
        """The daemon ends: what is still under way goes on without it, and nobody here will see its end."""
        for sent in self._sent.values():
            message = f"{sent.step.why}; the daemon ended before it came back"
            self._tell(self._fact(sent, "unknown", message))
        self._sent.clear()

    def _noted(self, step: Step) -> _Sent:
        target = self._target()
        if target is None:
            return _Sent(step, self._wall(), 0, ())
        stack, desired = target
        group = stack.group_of.get(step.service)
        return _Sent(step, self._wall(), desired.generation, (group,) if group else ())

    def _fact(self, sent: _Sent, result: str, message: str) -> AuditEvent:
        step = sent.step
        kind = "image" if step.action in _IMAGES else "container"
        return AuditEvent(
            f"{kind}_{step.action}",
            target=step.service,
            result=result,
            user=LOOP,
            reason=step.cause,
            message=message,
            generation=sent.generation,
            groups=sent.groups,
            at=self._wall(),
        )


def accepted(
    asked: str,
    *,
    user: str,
    source: str,
    generation: int,
    groups: tuple[str, ...],
    changes: Iterable[str],
    at: float,
) -> AuditEvent:
    """A change of desired state that was accepted. ``asked`` is ``ACTION TARGET``, or ``edited``."""
    action, _, target = asked.partition(" ")
    return AuditEvent(
        "edit" if action == "edited" else action,
        target=target or "desired-state",
        result="accepted",
        user=user,
        reason="edited" if action == "edited" else "requested",
        message="; ".join(changes),
        source=source,
        generation=generation,
        groups=groups,
        at=at,
    )


def rejected(mistakes: Iterable[Mistake], *, user: str, generation: int, at: float) -> AuditEvent:
    """An edit that is not taken over. Where the mistakes are, not what stands there: it may be a secret."""
    told = tuple(mistakes)
    places = [
        place._replace(message="").path + (f":{place.line}" if place.line else "") for place in told[:5]
    ]
    shown = ", ".join(dict.fromkeys(places))
    return AuditEvent(
        "edit",
        target="desired-state",
        result="refused",
        user=user,
        reason="desired_state_invalid",
        message=f"{len(told)} mistake{'s' if told[1:] else ''}, in {shown}; the last good state is kept",
        generation=generation,
        at=at,
    )


def changed_groups(before: Target | None, after: Target) -> tuple[str, ...]:
    """The groups that are not as they were, in display order; those that are gone come last."""
    if before is None:
        return tuple(after[0].groups)
    old, new = ({name: _meaning(target, name) for name in target[0].groups} for target in (before, after))
    return tuple(name for name in {**new, **old} if old.get(name) != new.get(name))


def _meaning(target: Target, name: str) -> object:
    stack, desired = target
    group = stack.groups[name]
    # A service without its place in the model: what another service does changes no group but its own.
    return group, desired.groups.get(name), [stack.services.get(service) for service in group.services]


def daemon_started(version: str, *, engine: str, address: str, crashed: bool, at: float) -> AuditEvent:
    """The daemon started. ``crashed``: the run before came to no end of its own."""
    note = "; the run before did not end by itself" if crashed else ""
    return AuditEvent(
        "daemon_start",
        target=address,
        result="after_crash" if crashed else "done",
        user=DAEMON,
        message=f"version {version}, engine {engine}{note}",
        at=at,
    )


def daemon_stopped(*, failed: bool, at: float) -> AuditEvent:
    """The daemon ends: it was told to, or a part of it failed."""
    return AuditEvent(
        "daemon_stop",
        result="failed" if failed else "done",
        user=DAEMON,
        reason="internal_error" if failed else "told_to",
        at=at,
    )
