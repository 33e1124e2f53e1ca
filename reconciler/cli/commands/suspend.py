"""``suspend`` and ``resume``: suspend groups and end the suspension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.cli.client import Client, Refused, quote_path
from reconciler.cli.connection import check_group, client_from, known_groups
from reconciler.cli.console import Console, clean
from reconciler.cli.options.spec import OptionValues
from reconciler.cli.output.status_rows import JsonObject, mapping, word_for_switch

_TRIES = 5


def suspend(values: OptionValues, console: Console) -> int:
    """Suspend groups: report drift, repair nothing."""
    details = {name: values[name] for name in ("until", "reason") if values[name]}
    return _set_suspension(details or True, values, console)


def resume(values: OptionValues, console: Console) -> int:
    """End the suspension of groups."""
    return _set_suspension(False, values, console)


def _set_suspension(suspend: Mapping[str, str] | bool, values: OptionValues, console: Console) -> int:
    client = client_from(values)
    known = known_groups(client)
    for name in values["group"]:
        check_group(name, known)
    answers: list[JsonObject] = []
    for name in values["group"]:
        answers.append(_put(client, name, suspend))
        if values["output"] != "json":
            console.print(f"{name}: {clean(answers[-1].get('message') or 'accepted')}")
    if values["output"] == "json":
        console.json({"outcome": "accepted", "answers": answers})
    return 0


def _put(client: Client, group: str, suspend: Mapping[str, str] | bool) -> JsonObject:
    """Write the group's current state with the suspension; retry if the group changed in between."""
    for last in (*[False] * _TRIES, True):
        seen, tag = client.get_with_etag(f"/services/status/{quote_path(group)}")
        current = mapping(seen)
        body: dict[str, Any] = {"state": word_for_switch(current.get("desired")), "suspend": suspend}
        body["force"] = bool(current.get("force"))
        try:
            return mapping(client.put(f"/services/groups/{quote_path(group)}", body, if_match=tag))
        except Refused as error:
            if error.status != 412 or last:
                raise
    raise AssertionError("unreachable")
