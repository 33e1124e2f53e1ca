"""``start``, ``stop``, ``restart`` and ``accept``: send one request per group, then show the progress."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.cli.client import ClientError, quote_path
from reconciler.cli.commands.wait import (
    CONVERGED,
    FAILED,
    INTERRUPTED,
    TIMED_OUT,
    TIMEOUT_MESSAGE,
    WaitResult,
    follow_change,
)
from reconciler.cli.connection import Connection, check_group, known_groups
from reconciler.cli.console import Console, clean
from reconciler.cli.output.status_rows import JsonObject, groups_of, mapping, word_for_switch

_ABSENT = 10.0
"""Seconds to wait for a daemon that does not listen yet: scripts start it and continue at once."""


class _Change(NamedTuple):
    """A change of groups: ``wanted`` is their new desired state, ``query`` the parameters of each request."""

    action: str
    wanted: str
    query: Mapping[str, bool]

    @property
    def opposite(self) -> str:
        """The command that reverts the change, or an empty text."""
        return {"start": "stop", "stop": "start"}.get(self.action, "")


class _Request(NamedTuple):
    """The options that all commands here share."""

    connection: Connection
    group: Sequence[str]
    no_wait: bool
    timeout: float
    output: str


def start(console: Console, *, force: bool, with_dependencies: bool, **request: Any) -> int:
    """Switch groups on."""
    query = {"force": force, "with_dependencies": with_dependencies}
    return _carry_out(_Change("start", "on", query), _Request(**request), console)


def stop(console: Console, *, force: bool, with_dependents: bool, **request: Any) -> int:
    """Switch groups off."""
    query = {"force": force, "with_dependents": with_dependents}
    return _carry_out(_Change("stop", "off", query), _Request(**request), console)


def restart(console: Console, **request: Any) -> int:
    """Restart the containers of groups."""
    return _carry_out(_Change("restart", "on", {}), _Request(**request), console)


def accept(console: Console, **request: Any) -> int:
    """Carry out the changes that wait in groups."""
    return _carry_out(_Change("accept", "on", {}), _Request(**request), console)


def _carry_out(change: _Change, request: _Request, console: Console) -> int:
    url = request.connection.url
    client = request.connection.open(
        absent_timeout=_ABSENT,
        on_wait=lambda: console.error(f"waiting for the daemon at {url}, which is not ready yet"),
    )
    known = known_groups(client)
    for name in request.group:
        check_group(name, known)
    groups = _ordered(change, request.group, known)
    as_json = request.output == "json"
    answers: list[JsonObject] = []
    query = {name: True for name, given in change.query.items() if given}
    for name in groups:
        try:
            answer = mapping(client.post(f"/services/{change.action}/{quote_path(name)}", query))
        except ClientError as error:
            return _print_refusal(error, groups, answers, console, as_json=as_json)
        answers.append(answer)
        if not as_json:
            console.print(f"{name}: {clean(answer.get('message') or 'accepted')}")
    if request.no_wait:
        if as_json:
            console.json({"outcome": "accepted", "answers": answers})
        return CONVERGED
    # Each request made a generation that supersedes the one before; the last one includes all changes.
    end = follow_change(
        client,
        answers[-1],
        console,
        output=request.output,
        timeout=request.timeout,
        revert=f"{change.opposite} {' '.join(groups)}" if change.opposite else "",
    )
    if end is None:
        return INTERRUPTED
    status = {} if end.state == "timeout" else mapping(client.get("/services/status"))
    code, outcome, lines = exit_code(change.wanted, _affected(groups, answers, status), end, status)
    if as_json:
        console.json({"outcome": outcome, "answers": answers, "progress": end.progress})
        return code
    for line in lines:
        if code == CONVERGED:
            console.print(line)
        else:
            console.failure(line) if line is lines[0] else console.error(line)
    return code


def _ordered(change: _Change, names: Sequence[str], known: Mapping[str, JsonObject]) -> list[str]:
    """Return each group once, in an order in which the daemon refuses none because of another one.

    A group comes after its dependencies to start, before them to stop; otherwise the given order is kept.
    """
    ordered: dict[str, None] = {}
    key = "dependents" if change.action == "stop" else "dependencies"

    def add(name: str, path: frozenset[str]) -> None:
        for needed in known.get(name, {}).get(key) or ():
            if needed in names and needed not in path:
                add(needed, path | {needed})
        ordered[name] = None

    for name in names:
        add(name, frozenset({name}))
    return list(ordered)


def _print_refusal(
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
            console.error(f"{', '.join(done)}: changed before the error; the daemon carries this out")
    return FAILED


def _as_options(remedy: str) -> str:
    """Return the daemon's remedy with command-line options: ``--force`` instead of ``force=true``."""
    return re.sub(r"\b(\w+)=true\b", lambda match: "--" + match[1].replace("_", "-"), remedy)


def _affected(groups: Sequence[str], answers: Iterable[JsonObject], status: JsonObject) -> list[str]:
    """Return the requested groups, then the groups that were changed with them."""
    services = {str(name) for answer in answers for name in answer.get("services_affected") or ()}
    changed_too = [
        name
        for name, group in groups_of(status).items()
        if any(str(service.get("name")) in services for service in group.get("services") or ())
    ]
    return [*groups, *(name for name in changed_too if name not in groups)]


def exit_code(
    wanted: str, groups: Sequence[str], end: WaitResult, status: JsonObject
) -> tuple[int, str, list[str]]:
    """Return exit code, outcome and lines to print, judged by the requested groups alone."""
    if end.state == "timeout":
        return TIMED_OUT, "timeout", [TIMEOUT_MESSAGE]
    known = groups_of(status)
    requested = {name: known[name] for name in groups if name in known}
    overruled = [name for name, group in requested.items() if word_for_switch(group.get("desired")) != wanted]
    if overruled:
        return FAILED, "overruled", [f"{', '.join(overruled)}: changed again by another request"]
    if end.state == "converged":
        return CONVERGED, "converged", [_success_line(requested, status)]
    not_converged = {
        name: group
        for name, group in requested.items()
        if group.get("phase") not in {"converged", "suspended"}
    }
    if requested and not not_converged:
        note = f"elsewhere in the stack: {clean(end.progress.get('message') or 'something is degraded')}"
        return CONVERGED, "converged", [_success_line(requested, status), note]
    lines = [f"{end.state}: {clean(end.progress.get('message') or 'not converged')}"]
    lines += [f"  {line}" for group in not_converged.values() for line in _reasons(group)]
    return FAILED, end.state, lines


def _success_line(requested: Mapping[str, JsonObject], status: JsonObject) -> str:
    suspended = [name for name, group in requested.items() if group.get("phase") == "suspended"]
    if suspended:
        return f"{', '.join(suspended)} suspended: the change is carried out when the suspension ends"
    return f"converged, generation {status.get('generation', '?')}"


def _reasons(group: Mapping[str, Any]) -> Iterable[str]:
    for service in group.get("services") or ():
        if service.get("phase") in {"degraded", "blocked"}:
            error = clean(service.get("last_error") or "")
            message = clean(service.get("message") or "")
            yield f"{service.get('name')}: {message}" + (f" ({error})" if error and error != message else "")
