"""``suspend`` and ``resume``: suspend groups and end the suspension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.cli.client import Client, Refused, quote_path
from reconciler.cli.connection import Connection, check_group, known_groups
from reconciler.cli.console import Console, clean
from reconciler.cli.output.status_rows import JsonObject, mapping, word_for_switch

_TRIES = 5


def suspend(
    console: Console,
    *,
    connection: Connection,
    group: Sequence[str],
    until: str | None,
    reason: str | None,
    output: str,
) -> int:
    """Suspend groups: report drift, repair nothing."""
    details = {name: text for name, text in (("until", until), ("reason", reason)) if text}
    return _set_suspension(details or True, connection, group, output, console)


def resume(console: Console, *, connection: Connection, group: Sequence[str], output: str) -> int:
    """End the suspension of groups."""
    return _set_suspension(False, connection, group, output, console)


def _set_suspension(
    suspend: Mapping[str, str] | bool,
    connection: Connection,
    groups: Sequence[str],
    output: str,
    console: Console,
) -> int:
    client = connection.open()
    known = known_groups(client)
    for name in groups:
        check_group(name, known)
    answers: list[JsonObject] = []
    for name in groups:
        answers.append(_put(client, name, suspend))
        if output != "json":
            console.print(f"{name}: {clean(answers[-1].get('message') or 'accepted')}")
    if output == "json":
        console.json({"outcome": "accepted", "answers": answers})
    return 0


def _put(client: Client, group: str, suspend: Mapping[str, str] | bool) -> JsonObject:
    """Write the group's current state with the suspension; retry if the group changed in between."""
    for last in (*[False] * _TRIES, True):
        response, etag = client.get_with_etag(f"/services/status/{quote_path(group)}")
        current = mapping(response)
        body: dict[str, Any] = {"state": word_for_switch(current.get("desired")), "suspend": suspend}
        body["force"] = bool(current.get("force"))
        try:
            return mapping(client.put(f"/services/groups/{quote_path(group)}", body, if_match=etag))
        except Refused as error:
            if error.status != 412 or last:
                raise
    raise AssertionError("unreachable")
