"""``start``, ``stop``, ``restart`` and ``accept``: one request per group, then the way there is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.cli.client import Client, ClientError, quote_path
from reconciler.cli.commands.wait import WaitResult, follow, view_for
from reconciler.cli.connection import check_group, client_from, known_groups
from reconciler.cli.console import Console, clean
from reconciler.cli.options.spec import OptionValues
from reconciler.cli.output.status_rows import JsonObject, groups_of, mapping, word_for_switch

_ABSENT = 10.0
"""Seconds for which a daemon that does not listen yet is waited for: scripts start it and go on at once."""

CONVERGED, FAILED, TIMED_OUT, INTERRUPTED = 0, 1, 3, 130


class _Change(NamedTuple):
    action: str
    wanted: str
    options: tuple[str, ...]


def start(values: OptionValues, console: Console) -> int:
    """Groups on."""
    return _carry_out(_Change("start", "on", ("force", "with_dependencies")), values, console)


def stop(values: OptionValues, console: Console) -> int:
    """Groups off."""
    return _carry_out(_Change("stop", "off", ("force", "with_dependents")), values, console)


def restart(values: OptionValues, console: Console) -> int:
    """Containers of groups made to start again."""
    return _carry_out(_Change("restart", "on", ()), values, console)


def accept(values: OptionValues, console: Console) -> int:
    """Changes of groups that were held back, carried out."""
    return _carry_out(_Change("accept", "on", ()), values, console)


def _carry_out(change: _Change, values: OptionValues, console: Console) -> int:
    client = client_from(
        values,
        absent_timeout=_ABSENT,
        on_wait=lambda: console.error(f"waiting for the daemon at {values['url']}, which is not ready yet"),
    )
    known = known_groups(client)
    for name in values["group"]:
        check_group(name, known)
    groups = _ordered(change, values["group"], known)
    as_json = values["output"] == "json"
    answers: list[JsonObject] = []
    refused: ClientError | None = None
    for name in groups:
        query = {option: True for option in change.options if values[option]}
        try:
            answer = mapping(client.post(f"/services/{change.action}/{quote_path(name)}", query))
        except ClientError as error:
            refused = error
            break
        answers.append(answer)
        if not as_json:
            console.print(f"{name}: {clean(answer.get('message') or 'accepted')}")
    if refused is not None:
        return _told_refusal(refused, groups, answers, console, as_json=as_json)
    if values["no_wait"]:
        if as_json:
            console.json({"outcome": "accepted", "answers": answers})
        return CONVERGED
    return _watch(client, change, groups, answers, values, console)


def _ordered(change: _Change, names: Sequence[str], known: Mapping[str, JsonObject]) -> list[str]:
    """Each group once, so that none is refused for another one of the same call.

    Started after what it depends on, stopped before; else as they were given.
    """
    found: dict[str, None] = {}
    key = "dependents" if change.action == "stop" else "dependencies"

    def add(name: str, path: frozenset[str]) -> None:
        for needed in known.get(name, {}).get(key) or ():
            if needed in names and needed not in path:
                add(needed, path | {needed})
        found[name] = None

    for name in names:
        add(name, frozenset({name}))
    return list(found)


def _told_refusal(
    error: ClientError, groups: Sequence[str], answers: list[JsonObject], console: Console, *, as_json: bool
) -> int:
    done = groups[: len(answers)]
    if as_json:
        console.json(
            {
                "outcome": "refused",
                "answers": answers,
                "error": {"message": str(error), "remedy": error.remedy},
            }
        )
    else:
        console.failure(f"{groups[len(answers)]}: {error}", _as_options(error.remedy))
        if done:
            console.error(f"{', '.join(done)}: changed before that, and carried out")
    return FAILED


def _as_options(remedy: str) -> str:
    """What the daemon says to do, in words of the command line: ``force=true`` is ``--force`` here."""
    return re.sub(r"\b(\w+)=true\b", lambda match: "--" + match[1].replace("_", "-"), remedy)


def _watch(
    client: Client,
    change: _Change,
    groups: Sequence[str],
    answers: list[JsonObject],
    values: OptionValues,
    console: Console,
) -> int:
    # Each request made a generation and overtook the one before it: the last one has them all.
    generation = answers[-1].get("generation")
    if not isinstance(generation, int):
        raise ClientError("the daemon did not say which generation this is", "is it of another version?")
    try:
        end = follow(client, generation, view_for(console, values["output"]), timeout=values["timeout"])
    except KeyboardInterrupt:
        console.error(
            f"Stopped watching. The change goes on; `service-manager status` shows how far it is, "
            f"`service-manager {_opposite(change)} {' '.join(groups)}` takes it back."
            if change.action in {"start", "stop"}
            else "Stopped watching. It goes on; `service-manager status` shows how far it is."
        )
        return INTERRUPTED
    status = {} if end.state == "timeout" else mapping(client.get("/services/status"))
    code, outcome, lines = exit_code(change.wanted, _affected(groups, answers, status), end, status)
    if values["output"] == "json":
        console.json({"outcome": outcome, "answers": answers, "progress": end.progress})
        return code
    for line in lines:
        if code == CONVERGED:
            console.print(line)
        else:
            console.failure(line) if line is lines[0] else console.error(line)
    return code


def _opposite(change: _Change) -> str:
    return "stop" if change.action == "start" else "start"


def _affected(groups: Sequence[str], answers: Iterable[JsonObject], status: JsonObject) -> list[str]:
    """The groups asked for and those that came along with them."""
    services = {str(name) for answer in answers for name in answer.get("services_affected") or ()}
    along = [
        name
        for name, group in groups_of(status).items()
        if any(str(service.get("name")) in services for service in group.get("services") or ())
    ]
    return [*groups, *(name for name in along if name not in groups)]


def exit_code(
    wanted: str, groups: Sequence[str], end: WaitResult, status: JsonObject
) -> tuple[int, str, list[str]]:
    """Exit code, a word and the lines to print: by the groups that were asked for, not by the whole stack."""
    if end.state == "timeout":
        message = "not converged in time; the change goes on, `service-manager watch` shows it"
        return TIMED_OUT, "timeout", [message]
    found = groups_of(status)
    asked = {name: found[name] for name in groups if name in found}
    turned = [name for name, group in asked.items() if word_for_switch(group.get("desired")) != wanted]
    if turned:
        return FAILED, "overruled", [f"{', '.join(turned)}: switched again by somebody else meanwhile"]
    if end.state == "converged":
        return CONVERGED, "converged", [_done(asked, status)]
    bad = {
        name: group for name, group in asked.items() if group.get("phase") not in {"converged", "suspended"}
    }
    if asked and not bad:
        note = f"elsewhere in the stack: {clean(end.progress.get('message') or 'something is degraded')}"
        return CONVERGED, "converged", [_done(asked, status), note]
    lines = [f"{end.state}: {clean(end.progress.get('message') or 'not converged')}"]
    lines += [f"  {line}" for group in bad.values() for line in _reasons(group)]
    return FAILED, end.state, lines


def _done(asked: Mapping[str, JsonObject], status: JsonObject) -> str:
    suspended = [name for name, group in asked.items() if group.get("phase") == "suspended"]
    if suspended:
        return f"{', '.join(suspended)} suspended: it is carried out when the suspension ends"
    return f"converged, generation {status.get('generation', '?')}"


def _reasons(group: Mapping[str, Any]) -> Iterable[str]:
    for service in group.get("services") or ():
        if service.get("phase") in {"degraded", "blocked"}:
            error = clean(service.get("last_error") or "")
            message = clean(service.get("message") or "")
            yield f"{service.get('name')}: {message}" + (f" ({error})" if error and error != message else "")
