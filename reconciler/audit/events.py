"""Turns steps, generations, changes and the daemon's start and stop into audit events.

Events hold only names and messages made here, never file contents, headers or environment variables. Error
texts come from the engine; ``chain.clean`` limits their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from reconciler.audit.chain import AuditEvent
from reconciler.controller.progress import Progress
from reconciler.errors import EngineError, EngineUnavailable, Mistake, OutcomeUnknown
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.change_reason import EDITED, ChangeReason
from reconciler.model.observed import Action
from reconciler.planning.planner import Step

DAEMON = "daemon"
LOOP = "loop"

RecordEvent = Callable[[AuditEvent], object]

_IMAGES = frozenset({Action.PULL, Action.BUILD})


class _Sent(NamedTuple):
    step: Step
    at: float
    generation: int
    groups: tuple[str, ...]


class StepRecorder:
    """Records one event for each finished step and each outcome of a generation. Called by the loop's hooks.

    ``record`` takes an event and returns at once; ``target`` returns the state that the loop converges to;
    ``wall`` returns wall time in seconds.
    """

    def __init__(
        self, record: RecordEvent, target: Callable[[], AcceptedState | None], wall: Callable[[], float]
    ) -> None:
        self._record = record
        self._target = target
        self._wall = wall
        self._sent: dict[str, _Sent] = {}

    def on_step(self, step: Step, error: EngineError | None, finished: bool) -> None:
        """Handle a step that was sent, or that ``finished``, with its error if it failed."""
        if not finished:
            self._sent[step.key] = self._sent_step(step)
            return
        sent = self._sent.pop(step.key, None) or self._sent_step(step)
        if error is None:
            result, message = "done", f"{step.why}; took {max(0.0, self._wall() - sent.at):.1f} s"
        elif isinstance(error, OutcomeUnknown | EngineUnavailable):
            result, message = "unknown", f"{step.why}; {error}"
        else:
            result, message = "failed", f"{step.why}; {error}"
        self._record(self._step_event(sent, result, message))

    def on_outcome(self, progress: Progress) -> None:
        """Record a generation's new outcome."""
        self._record(
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
        """Record the steps still in flight as unknown: the engine finishes them after the daemon stops."""
        for sent in self._sent.values():
            message = f"{sent.step.why}; the daemon stopped before the step finished"
            self._record(self._step_event(sent, "unknown", message))
        self._sent.clear()

    def _sent_step(self, step: Step) -> _Sent:
        target = self._target()
        if target is None:
            return _Sent(step, self._wall(), 0, ())
        group = target.stack.group_of.get(step.service)
        return _Sent(step, self._wall(), target.desired.generation, (group,) if group else ())

    def _step_event(self, sent: _Sent, result: str, message: str) -> AuditEvent:
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
    reason: ChangeReason,
    *,
    user: str,
    source: str,
    generation: int,
    groups: tuple[str, ...],
    changes: Iterable[str],
    at: float,
) -> AuditEvent:
    """Return the event for an accepted change of desired state."""
    by_hand = reason == EDITED
    return AuditEvent(
        "edit" if by_hand else reason.action,
        target=reason.target or "desired-state",
        result="accepted",
        user=user,
        reason="edited" if by_hand else "requested",
        message="; ".join(changes),
        source=source,
        generation=generation,
        groups=groups,
        at=at,
    )


def rejected(mistakes: Iterable[Mistake], *, user: str, generation: int, at: float) -> AuditEvent:
    """Return the event for a rejected edit.

    The event names the places of the mistakes and not the text there, which may be a secret.
    """
    all_mistakes = tuple(mistakes)
    places = [one.path + (f":{one.line}" if one.line else "") for one in all_mistakes[:5]]
    shown = ", ".join(dict.fromkeys(places))
    count = f"{len(all_mistakes)} mistake{'s' if all_mistakes[1:] else ''}"
    return AuditEvent(
        "edit",
        target="desired-state",
        result="refused",
        user=user,
        reason="desired_state_invalid",
        message=f"{count}, in {shown}; the last valid state stays in force",
        generation=generation,
        at=at,
    )


def changed_groups(before: AcceptedState | None, after: AcceptedState) -> tuple[str, ...]:
    """Return the groups that differ, in display order; removed groups come last."""
    if before is None:
        return tuple(after.stack.groups)
    old, new = ({name: _meaning(state, name) for name in state.stack.groups} for state in (before, after))
    return tuple(name for name in {**new, **old} if old.get(name) != new.get(name))


def _meaning(state: AcceptedState, name: str) -> object:
    group = state.stack.groups[name]
    # Services of this group only: a change to another service must not count for this group.
    services = [state.stack.services.get(service) for service in group.services]
    return group, state.desired.groups.get(name), services


def daemon_started(version: str, *, engine: str, address: str, crashed: bool, at: float) -> AuditEvent:
    """Return the event for the daemon's start. ``crashed``: the previous run recorded no stop."""
    note = "; the previous run did not shut down cleanly" if crashed else ""
    return AuditEvent(
        "daemon_start",
        target=address,
        result="after_crash" if crashed else "done",
        user=DAEMON,
        message=f"version {version}, engine {engine}{note}",
        at=at,
    )


def daemon_stopped(*, failed: bool, at: float) -> AuditEvent:
    """Return the event for the daemon's stop; ``failed``: an internal failure is the reason."""
    return AuditEvent(
        "daemon_stop",
        result="failed" if failed else "done",
        user=DAEMON,
        reason="internal_error" if failed else "told_to",
        at=at,
    )
