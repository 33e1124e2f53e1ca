"""Formats groups and services of a status response as table rows. Pure.

The daemon may be newer or older than this program: a missing field is left blank, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.cli.console import Cell, Row, clean, duration, megabytes, phase_style

JsonObject = Mapping[str, Any]

HEADER: Row = (
    Cell("GROUP", "dim"),
    Cell("WANTED", "dim"),
    Cell("STATE", "dim"),
    Cell("MEMORY", "dim"),
    Cell("", "dim"),
)


def headline(status: JsonObject) -> list[Cell]:
    """Return the parts of the first line: name, state, generation, services and memory of the stack."""
    generation = status.get("generation")
    if status.get("converged"):
        state = Cell("converged", "bold")
    else:
        progress = mapping(status.get("progress"))
        word = clean(progress.get("state") or "not converged")
        state = Cell(
            "not converged" if word == "converged" else word, "red" if word == "degraded" else "yellow"
        )
    parts = [Cell(clean(status.get("stack") or status.get("name") or "stack"), "bold"), state]
    if generation is not None:
        parts.append(Cell(f"generation {generation}"))
    parts.append(Cell("pilot ready" if status.get("pilot_ready") else "pilot not ready"))
    running, total = status.get("running_services"), status.get("total_services")
    if total is not None:
        parts.append(Cell(f"{running} of {total} services run"))
    if isinstance(status.get("total_memory_mb"), int | float):
        parts.append(Cell(megabytes(status["total_memory_mb"])))
    return parts


def problems(status: JsonObject) -> Iterator[Cell]:
    """Yield the problems of the whole stack: engine, files, warnings."""
    engine = status.get("engine")
    if isinstance(engine, Mapping) and engine.get("reachable") is False:
        error = clean(engine.get("error") or "")
        yield Cell("the engine can't be reached" + (f": {error}" if error else ""), "red")
    for error in status.get("errors") or ():
        yield Cell(mistake(error), "red")
    for warning in status.get("warnings") or ():
        yield Cell(f"warning: {clean(warning)}", "yellow")


def mistake(value: object) -> str:
    """Return a mistake in a file as file:line:column: message."""
    if not isinstance(value, Mapping):
        return clean(value)
    place = clean(value.get("path") or value.get("file") or "")
    for part in ("line", "column"):
        if not value.get(part):
            break
        place += f":{value[part]}"
    return clean(f"{place}: {value.get('message', '')}" if place else value.get("message", ""))


def group_rows(name: str, group: JsonObject, *, services: bool) -> Iterator[Row]:
    """Yield the row of a group, and with ``services`` the rows of its services."""
    desired = word_for_switch(group.get("desired"))
    phase = clean(group.get("phase") or "")
    status = clean(group.get("status") or "")
    settled = phase in {"", "converged"}
    state = status if settled else phase
    total, running = group.get("total_count"), group.get("running_count")
    if settled and status == "running" and total is not None:
        state = f"{running}/{total} running" if running != total else f"{total} running"
    note = "" if settled else clean(group.get("message") or "")
    yield (
        Cell(name, "bold" if desired == "on" else ""),
        desired,
        Cell(state, phase_style(phase) or ("dim" if desired == "off" else "")),
        _memory(group, desired),
        Cell(note, phase_style(phase)),
    )
    if services:
        yield from (service_row(service) for service in group.get("services") or ())


def _memory(group: JsonObject, desired: str) -> str:
    used, estimate = group.get("total_memory_mb"), group.get("estimated_memory_mb")
    if not isinstance(estimate, int | float):
        return megabytes(used) if used else ""
    if desired == "off" and not used:
        return f"({estimate:.0f} MB)"
    return f"{used or 0:.0f} / {estimate:.0f} MB"


def service_row(service: JsonObject) -> Row:
    """Return the row of a service."""
    phase = clean(service.get("phase") or "")
    return (
        Cell(f"  {clean(service.get('name', '?'))}"),
        "",
        Cell(service_state(service), phase_style(phase)),
        megabytes(service["memory_mb"]) if service.get("memory_mb") is not None else "",
        Cell(service_note(service), phase_style(phase)),
    )


def service_state(service: JsonObject) -> str:
    """Return the state of a service in one word: that of its container, or of its health check."""
    status, health = clean(service.get("status") or "absent"), service.get("health")
    if service.get("done"):
        return "done"
    if status == "running" and not service.get("ready"):
        return "unhealthy" if health == "unhealthy" else "starting"
    return status


def service_note(service: JsonObject) -> str:
    """Return the note on a service: why it is not converged, or its uptime."""
    if service.get("phase") not in {None, "", "converged"}:
        notes = [clean(service.get("message") or "")]
        error = clean(service.get("last_error") or "")
        if error and error not in notes[0]:
            notes.append(f"last error: {error}")
        return "; ".join(filter(None, notes))
    notes = [clean(f"differs: {kind}") for kind in service_drift(service)]
    if service.get("reason") == "scaled_to_zero":
        notes.insert(0, clean(service.get("message") or ""))
    uptime = service.get("uptime")
    if isinstance(uptime, int | float) and service.get("status") == "running":
        notes.append(f"up {duration(uptime)}")
    if service.get("restart_count"):
        notes.append(f"restarted {service['restart_count']} times by the engine")
    return ", ".join(notes)


def service_drift(service: JsonObject) -> list[str]:
    """Return the kinds of drift of a service."""
    drift = service.get("drift") or ()
    if isinstance(drift, str):
        return [drift]
    return [str(item.get("kind", "?")) if isinstance(item, Mapping) else str(item) for item in drift]


def word_for_switch(value: object) -> str:
    """Return 'on' or 'off' for a desired state."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return clean(value or "")


def mapping(value: object) -> JsonObject:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def groups_of(status: JsonObject) -> Mapping[str, JsonObject]:
    """Return the groups of a status response by name."""
    return {str(name): mapping(group) for name, group in mapping(status.get("groups")).items()}
