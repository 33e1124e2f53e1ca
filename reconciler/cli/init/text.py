"""Generates the two YAML files of ``init``, with explaining comments. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from reconciler.cli.init.groups import Proposal, ProposedGroup
from reconciler.model.units import format_memory

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+\-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Plain scalars that some YAML parsers do not read as text."""
_WIDTH = 100
_NOTE = 32
"""The column of a comment after a value."""


def quoted(text: str) -> str:
    """Return the text as a YAML scalar that every parser reads as this text."""
    plain = _PLAIN.fullmatch(text) or (_PLAIN_PATH.fullmatch(text) and "/" in text)
    if plain and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def stack_text(name: str, compose: Sequence[str], proposal: Proposal) -> str:
    """Return the content of ``stack.yaml``."""
    lines = [
        "# The groups of the stack: their services, memory and dependencies.",
        "# Written by `service-manager init`. Edit it as you like: rename, split and merge groups.",
        "# groups.yaml switches groups on and off; the Compose file describes each service.",
        "# `service-manager validate` checks this directory, `service-manager plan` shows what would happen.",
        "",
        _noted(f"name: {quoted(name)}", "the Compose project name, as Compose itself chooses it"),
        _noted(
            f"compose: {_flow(compose)}",
            "one or more files, as with `docker compose -f`, relative to this one",
        ),
        "",
        "# Options of a group; only `services` is required:",
        "#   description: Web shop       shown by `groups` and the dashboard",
        "#   memory: 700MB               an estimate, to check whether it fits; MB is 10^6, MiB 2^20",
        "#   depends_on: {db: on}        on: that group must be on; Compose orders the services",
        "#   depends_on: [db]            ready: starts nothing before every service of that group is ready",
        "#   unhealthy: {after: 2m, action: restart, limit: 3 in 30m}    the default; or recreate, or report",
        "#   on_change: report           a changed definition, image or file waits for `accept`",
        "groups:  # the order here is the order of display",
    ]
    for group in proposal.groups:
        lines += _group(group)
    lines += [
        "",
        "# A service of the Compose file that is in no group is listed as unmanaged and never changed.",
        _noted(
            "prune: false",
            "true: remove containers of services that left the files; never volumes",
        ),
        _noted("restart: compose", "restart policies of Compose; managed: only the daemon starts containers"),
        "",
    ]
    return "\n".join(lines)


def _group(group: ProposedGroup) -> list[str]:
    lines = ["", f"  # {_one_line(group.origin)}", f"  {quoted(group.name)}:"]
    flow = f"    services: {_flow(group.services)}"
    if len(flow) <= _WIDTH:
        lines.append(flow)
    else:
        lines += ["    services:", *(f"      - {quoted(service)}" for service in group.services)]
    lines.append(_noted(f"    memory: {format_memory(group.memory)}", _about_memory(group)))
    if group.depends_on:
        needed = ", ".join(f"{quoted(name)}: on" for name in group.depends_on)
        lines.append(f"    depends_on: {{{needed}}}")
    return lines


def _about_memory(group: ProposedGroup) -> str:
    guessed = group.guessed
    if not guessed:
        return "from limits in the Compose file, or measured"
    if len(guessed) == len(group.services):
        return "a guess, 100MB per service; `docker stats` shows the real usage"
    names = ", ".join(guessed[:3]) + (f" and {len(guessed) - 3} more" if len(guessed) > 3 else "")
    return f"100MB of it a guess for {names}"


def groups_text(proposal: Proposal, on: Collection[str], note: str) -> str:
    """Return the content of ``groups.yaml``, with the groups in ``on`` switched on."""
    width = max((len(quoted(group.name)) for group in proposal.groups), default=0) + 1
    lines = [
        "# The groups that should be on. The daemon applies this file when it is saved.",
        "# It names every group of stack.yaml, also those that are off, so that a truncated file is detected",
        "# and stops nothing.",
        "#",
        "#   web: on                                       on or off (or true and false)",
        "#   web: {state: on, force: true}                 start even if a group that it depends on is off",
        "#   web: {state: on, suspend: true}               report drift, repair nothing",
        f"# {_one_line(note)}.",
        "groups:",
    ]
    for group in proposal.groups:
        state = "on" if group.name in on else "off"
        lines.append(f"  {quoted(group.name) + ':':<{width}} {state}")
    return "\n".join([*lines, ""])


def _flow(texts: Sequence[str]) -> str:
    return f"[{', '.join(quoted(text) for text in texts)}]"


def _noted(text: str, note: str) -> str:
    return f"{text:<{_NOTE}}# {note}" if len(text) < _NOTE else f"{text}  # {note}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
