"""``plan``: shows every step that the daemon would take now, by group."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.cli.console import Cell, Console, Row, clean
from reconciler.cli.oneshot import (
    load,
    observe,
    open_engine,
    read_clocks,
    read_ledger,
    relative_to_cwd,
    stack_with_model,
)
from reconciler.desired_state.digest_key_file import read_key
from reconciler.errors import InvalidDesiredState
from reconciler.model.stack import Stack
from reconciler.planning.drift import Drift
from reconciler.planning.dry_run import dry_run
from reconciler.planning.plan_types import Unresolved
from reconciler.planning.planner import Plan, Step
from reconciler.planning.planner import plan as decide
from reconciler.planning.project_rename import record_rename, warnings
from reconciler.planning.record_observation import record_observation

CHANGES = 2


class Preview(NamedTuple):
    """The plan to show: all steps in order, the plan that remains after them, and the current drift."""

    stack: Stack
    steps: tuple[Step, ...]
    remaining: Plan
    drifts: tuple[Drift, ...]


def plan(
    console: Console,
    *,
    desired_state: Path,
    state_dir: Path,
    compose_file: tuple[Path, ...],
    engine: str,
    output: str,
) -> int:
    """Print the plan; exit code 2 if it has steps."""
    try:
        preview = asyncio.run(_preview(desired_state, state_dir, compose_file, engine))
    except InvalidDesiredState as error:
        raise InvalidDesiredState(
            tuple(relative_to_cwd(mistake, desired_state) for mistake in error.mistakes)
        ) from None
    if output == "json":
        console.json(as_json(preview))
    else:
        show(preview, console)
    return CHANGES if preview.steps else 0


async def _preview(
    desired_state: Path, state_dir: Path, compose_file: tuple[Path, ...], engine_name: str
) -> Preview:
    key = read_key(state_dir)
    loaded = await load(desired_state, compose_file, key=key)
    now = read_clocks()
    ledger = read_ledger(state_dir, now)
    with stack_with_model(loaded) as stack:
        async with open_engine(engine_name) as engine:
            observed = await observe(engine, stack, ledger)
        # Record the observation as the first pass of the loop does. Otherwise the plan would recreate a
        # stack that the daemon adopts.
        ledger = record_observation(stack, loaded.desired, observed, ledger, now, chance=0.0)
        ledger = record_rename(stack, loaded.desired, observed, ledger, now)
        simulated = dry_run(stack, loaded.desired, observed, ledger, now)
        first = decide(stack, loaded.desired, observed, ledger, now)
        states = {name: state.on for name, state in loaded.desired.groups.items()}
        with_warnings = replace(stack, warnings=(*stack.warnings, *warnings(stack, states, observed, ledger)))
    return Preview(with_warnings, simulated.steps, simulated.rest, first.drifts)


def as_json(preview: Preview) -> dict[str, Any]:
    """Return the preview as JSON: steps as in ``GET /services/plan``, with the group added."""
    group_of = preview.stack.group_of
    return {
        "changes": bool(preview.steps),
        "steps": [
            {
                "service": step.service,
                "group": group_of.get(step.service),
                "action": str(step.action),
                "reason": step.cause,
                "message": step.why,
            }
            for step in preview.steps
        ],
        "waiting": [
            {
                "service": held.service,
                "group": group_of.get(held.service),
                "phase": held.phase,
                "reason": held.reason,
                "message": held.message,
            }
            for held in preview.remaining.unresolved
        ],
        "drift": [
            {
                "service": drift.service,
                "group": group_of.get(drift.service),
                "kind": str(drift.kind),
                "pending": drift.pending,
                "message": drift.detail,
                "fields": list(drift.fields),
            }
            for drift in preview.drifts
        ],
        "replicas": {name: preview.stack.services[name].replicas for name in preview.stack.replicated},
        "warnings": list(preview.stack.warnings),
    }


_SIGNS = {"create": "+", "start": "+", "stop": "-", "kill": "-", "remove": "-"}
_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def show(preview: Preview, console: Console) -> None:
    """Print the actions of each service by group, then a summary line."""
    for warning in preview.stack.warnings:
        console.print(console.paint(f"warning: {clean(warning)}", "yellow"))
    unresolved = {held.service: held for held in preview.remaining.unresolved}
    by_service: dict[str, list[Step]] = {}
    for step in preview.steps:
        by_service.setdefault(step.service, []).append(step)
    rows: list[Row] = []
    for group in preview.stack.groups.values():
        shown = [
            row
            for name in group.services
            for row in _rows(name, by_service.get(name, []), unresolved.get(name))
        ]
        if shown:
            rows += [(Cell(group.name, "bold"),), *shown]
    others = [name for name in by_service if name not in preview.stack.group_of]
    if others:
        rows += [(Cell("in no group", "bold"),)]
        rows += [row for name in others for row in _rows(name, by_service[name], None)]
    if rows:
        console.table(rows)
        console.print()
    for number in preview.stack.numbers:
        console.print(clean(number))
    console.print(summary(preview))


def _rows(name: str, steps: list[Step], held: Unresolved | None) -> Iterator[Row]:
    if steps:
        words = Counter(str(step.action) for step in steps)
        signs = {_SIGNS.get(word, "~") for word in words}
        sign = signs.pop() if len(signs) == 1 else "~"
        yield (
            Cell(f"  {sign} {name}", _STYLES[sign]),
            ", ".join(word if count == 1 else f"{word} ×{count}" for word, count in words.items()),
            Cell(clean(steps[0].why), "dim"),
        )
    if held:
        style = {"blocked": "red", "suspended": "blue"}.get(held.phase, "yellow")
        yield (Cell(f"  ! {name}", style), Cell(held.phase, style), Cell(clean(held.message), style))


def summary(preview: Preview) -> str:
    """Return one line: the number of steps by action, of services, and of services that are held back."""
    counts: dict[str, int] = {}
    for step in preview.steps:
        counts[str(step.action)] = counts.get(str(step.action), 0) + 1
    if not counts:
        text = "Nothing to do"
    else:
        kinds = ", ".join(f"{count} {action}" for action, count in counts.items())
        services = len({step.service for step in preview.steps})
        total = len(preview.steps)
        text = f"{total} step{_s(total)} for {services} service{_s(services)}: {kinds}"
    for phase in ("blocked", "waiting", "suspended"):
        number = sum(held.phase == phase for held in preview.remaining.unresolved)
        if number:
            text += f"; {number} {'left ' if phase == 'waiting' else ''}{phase}"
    return text + "."


def _s(count: int) -> str:
    return "" if count == 1 else "s"
