"""``status``, ``groups`` and ``drift``: print responses of the daemon."""

from __future__ import annotations

from typing import Any

from reconciler.cli.client import Refused, quote_path
from reconciler.cli.connection import Connection, check_group, known_groups
from reconciler.cli.console import Cell, Console, Row, clean, duration, megabytes, phase_style
from reconciler.cli.output.status_rows import (
    HEADER,
    group_rows,
    groups_of,
    headline,
    mapping,
    problems,
    service_note,
    service_state,
    word_for_switch,
)


def status(console: Console, *, connection: Connection, group: str | None, output: str) -> int:
    """Print the whole stack, or one group in detail."""
    client = connection.open()
    if group is None:
        answer = client.get("/services/status")
    else:
        try:
            answer = client.get(f"/services/status/{quote_path(group)}")
        except Refused as error:
            if error.status == 404:
                check_group(group, known_groups(client))
            raise
    if output == "json":
        console.json(answer)
    elif group is None:
        _print_stack(answer, console)
    else:
        _print_group(group, answer, console)
    return 0


def _print_stack(answer: dict[str, Any], console: Console) -> None:
    console.print("  ".join(console.paint(cell.text, cell.style) for cell in headline(answer)))
    for cell in problems(answer):
        console.print(console.paint(cell.text, cell.style))
    console.print()
    rows: list[Row] = [HEADER]
    for name, group in groups_of(answer).items():
        rows += group_rows(name, group, services=_shows_services(group))
    console.table(rows, right=(3,))


def _shows_services(group: Any) -> bool:
    # A group that is off and stopped needs one line only.
    return word_for_switch(group.get("desired")) != "off" or group.get("phase") not in {"converged", None}


def _print_group(name: str, group: dict[str, Any], console: Console) -> None:
    phase = clean(group.get("phase") or "")
    parts = [console.paint(name, "bold"), word_for_switch(group.get("desired"))]
    parts.append(console.paint(phase or clean(group.get("status") or ""), phase_style(phase)))
    parts.append(f"{group.get('running_count', 0)} of {group.get('total_count', 0)} run")
    parts.append(
        f"{megabytes(group.get('total_memory_mb'))} of about {megabytes(group.get('estimated_memory_mb'))}"
    )
    console.print("  ".join(parts))
    if group.get("message"):
        console.print(console.paint(clean(group["message"]), phase_style(phase)))
    if phase == "suspended":
        console.print(console.paint(_suspension(group), phase_style(phase)))
    console.print()
    titles = ("SERVICE", "STATE", "MEMORY", "CPU", "UP", "PORTS", "CONTAINER", "")
    rows: list[Row] = []
    for service in group.get("services") or ():
        style = phase_style(clean(service.get("phase") or ""))
        cpu, uptime = service.get("cpu_percent"), service.get("uptime")
        rows.append(
            (
                clean(service.get("name", "?")),
                Cell(service_state(service), style),
                megabytes(service.get("memory_mb")),
                f"{cpu:.0f} %" if isinstance(cpu, int | float) else "–",
                duration(uptime) if uptime else "–",
                " ".join(clean(port) for port in service.get("ports") or ()),
                clean(service.get("container") or ""),
                Cell(service_note(service) if style else "", style),
            )
        )
    console.table(rows, titles=titles, right=(2, 3, 4))


def _suspension(group: dict[str, Any]) -> str:
    until, reason = clean(group.get("suspended_until") or ""), clean(group.get("suspend_reason") or "")
    text = f"until {until}" if until else f"until `service-manager resume {group.get('group', 'GROUP')}`"
    return f"{text}: {reason}" if reason else text


def groups(console: Console, *, connection: Connection, output: str) -> int:
    """Print all groups with their services and dependencies."""
    answer = connection.open().get("/services/groups")
    if output == "json":
        console.json(answer)
        return 0
    titles = ("GROUP", "MEMORY", "NEEDS", "SERVICES", "")
    rows: list[Row] = []
    for name, group in mapping(mapping(answer).get("groups")).items():
        rows.append(
            (
                Cell(clean(name), "bold"),
                megabytes(group.get("estimated_ram_mb")),
                ", ".join(map(clean, group.get("dependencies") or ())) or "–",
                ", ".join(map(clean, group.get("services") or ())),
                Cell(clean(group.get("description") or ""), "dim"),
            )
        )
    console.table(rows, titles=titles, right=(1,))
    return 0


def drift(console: Console, *, connection: Connection, output: str) -> int:
    """Print the differences between the files and the containers."""
    answer = connection.open().get("/services/drift")
    if output == "json":
        console.json(answer)
        return 0
    differences = _drifts(answer)
    if not differences:
        console.print("no difference between desired and observed")
        return 0
    titles = ("SERVICE", "KIND", "", "WHAT DIFFERS")
    rows: list[Row] = []
    for item in differences:
        pending = bool(item.get("pending"))
        fields = ", ".join(map(clean, item.get("fields") or ()))
        detail = clean(item.get("detail") or item.get("message") or "")
        rows.append(
            (
                clean(item.get("service", "?")),
                Cell(clean(item.get("kind", "?")), "" if pending else "yellow"),
                "pending" if pending else "drifted",
                detail if not fields or fields in detail else f"{detail} ({fields})",
            )
        )
    console.table(rows, titles=titles)
    return 0


def _drifts(answer: Any) -> list[dict[str, Any]]:
    listed = (
        answer if isinstance(answer, list) else mapping(answer).get("drift", mapping(answer).get("drifts"))
    )
    if isinstance(listed, dict):
        # By kind: {"missing": [...], ...}.
        listed = [{"kind": kind, **mapping(item)} for kind, items in listed.items() for item in items]
    return [item for item in listed or () if isinstance(item, dict)]
