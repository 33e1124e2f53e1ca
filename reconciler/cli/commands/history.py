"""``history`` and ``rollback``: lists generations, and goes back to one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.cli.client import Client, ClientError, quote_path
from reconciler.cli.commands.wait import (
    CONVERGED,
    FAILED,
    INTERRUPTED,
    TIMED_OUT,
    TIMEOUT_MESSAGE,
    WaitResult,
    follow_change,
)
from reconciler.cli.connection import Connection
from reconciler.cli.console import Cell, Console, Row, clean
from reconciler.cli.output.status_rows import JsonObject, groups_of, mapping
from reconciler.cli.output.time_format import local_time

_STYLES = {"degraded": "red", "progressing": "yellow", "superseded": "dim"}
_MOST_STEPS = 40


def history(console: Console, *, connection: Connection, limit: int, before: int | None, output: str) -> int:
    """Print generations, the newest last."""
    query = {"limit": limit} | ({"before": before} if before else {})
    answer = mapping(connection.open().get("/services/history", query))
    if output == "json":
        console.json(answer)
        return 0
    entries = [mapping(entry) for entry in answer.get("entries") or ()]
    if not entries:
        console.print("there are no generations yet")
        return 0
    titles = ("GENERATION", "WHEN", "WHO", "WHY", "STATE", "WHAT CHANGED")
    console.table(map(_row, entries), titles=titles, right=(0,))
    if answer.get("before"):
        console.error(f"older generations: service-manager history --before {answer['before']}")
    return 0


def _row(entry: Mapping[str, Any]) -> Row:
    state = clean(entry.get("state") or "")
    commit = clean(entry.get("commit") or "")[:10]
    why = clean(entry.get("reason") or "")
    return (
        Cell(f"{entry.get('generation', '?')}{'*' if entry.get('current') else ''}"),
        local_time(entry.get("accepted_at")),
        clean(entry.get("author") or "–"),
        why if not commit or commit in why else f"{why} ({commit})",
        Cell(state, _STYLES.get(state, "")),
        "; ".join(clean(change) for change in entry.get("changes") or ()),
    )


def rollback(
    console: Console,
    *,
    connection: Connection,
    target: str | None,
    yes: bool,
    no_wait: bool,
    timeout: float,
    output: str,
) -> int:
    """Show what a rollback would change, ask for confirmation and carry it out."""
    client = connection.open()
    target = target or _previous_generation(client)
    plan = mapping(client.get(f"/services/history/{quote_path(target)}"))
    as_json = output == "json"
    if not as_json:
        for line in format_generation(plan):
            console.print(line)
    if not plan.get("files"):
        if as_json:
            console.json({"outcome": "nothing to do", "plan": plan})
        return CONVERGED
    if not (yes or as_json) and not _confirmed(console):
        console.error("nothing was changed")
        return FAILED
    answer = mapping(client.post(f"/services/rollback/{quote_path(target)}"))
    if not as_json:
        console.print(clean(answer.get("message") or "accepted"))
    if no_wait:
        if as_json:
            console.json({"outcome": "accepted", "plan": plan, "answer": answer})
        return CONVERGED
    end = follow_change(client, answer, console, output=output, timeout=timeout)
    if end is None:
        return INTERRUPTED
    code = {"converged": CONVERGED, "timeout": TIMED_OUT}.get(end.state, FAILED)
    if as_json:
        console.json({"outcome": end.state, "plan": plan, "answer": answer, "progress": end.progress})
    elif code == CONVERGED:
        console.print(f"converged, generation {end.generation}")
    else:
        for line in _reasons(end, client):
            console.error(line)
    return code


def _previous_generation(client: Client) -> str:
    """Return the generation before the current one."""
    entries = list(mapping(client.get("/services/history", {"limit": 2})).get("entries") or [])
    if len(entries) < 2:
        raise ClientError("there is no earlier generation to go back to", "see `service-manager history`")
    return str(mapping(entries[0]).get("generation"))


def _confirmed(console: Console) -> bool:
    """Ask for confirmation on a terminal; return True without one, because a script can't answer."""
    if not sys.stdin.isatty():
        return True
    console.out.write("Roll back? [y/N] ")
    console.out.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def format_generation(plan: JsonObject) -> Iterator[str]:
    """Format what a rollback changes, as lines."""
    entry = mapping(plan.get("entry"))
    name = f"generation {entry['generation']}" if entry else f"commit {clean(plan.get('commit') or '')[:10]}"
    origin = (
        f", of {local_time(entry.get('accepted_at'))} by {clean(entry.get('author') or '')}" if entry else ""
    )
    if not plan.get("files"):
        yield f"Nothing to roll back: {name} equals the current state."
        return
    yield f"Roll back to {name}{origin}:"
    yield f"  files    {', '.join(clean(name) for name in plan['files'])}"
    changes = plan.get("changes") or ("nothing that affects containers",)
    yield from (f"  {'changes' if i == 0 else '':8} {clean(line)}" for i, line in enumerate(changes))
    steps = _by_service(plan.get("steps") or ())
    for index, (service, actions) in enumerate(steps.items()):
        if index == _MOST_STEPS:
            yield f"           and {len(steps) - index} more services"
            break
        yield f"  {'steps' if index == 0 else '':8} {clean(service)}: {', '.join(map(clean, actions))}"
    if not plan.get("engine_seen", True):
        yield "  steps    unknown: the daemon can't reach the engine"
    for item in map(mapping, plan.get("waiting") or ()):
        if item.get("action") == "blocked":
            yield f"  blocked  {clean(item.get('service'))}: {clean(item.get('message') or '')}"


def _by_service(steps: Sequence[JsonObject]) -> dict[str, list[str]]:
    actions: dict[str, list[str]] = {}
    for step in map(mapping, steps):
        actions.setdefault(str(step.get("service")), []).append(str(step.get("action")))
    return actions


def _reasons(end: WaitResult, client: Client) -> Iterator[str]:
    if end.state == "timeout":
        yield TIMEOUT_MESSAGE
        return
    yield f"{end.state}: {clean(end.progress.get('message') or 'not converged')}"
    for name, group in groups_of(mapping(client.get("/services/status"))).items():
        if group.get("phase") in {"blocked", "degraded"}:
            yield f"  {clean(name)}: {clean(group.get('message') or '')}"
