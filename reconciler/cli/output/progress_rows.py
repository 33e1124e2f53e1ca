"""Formats the progress of a generation as rows and sentences. Pure: no clock, no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from reconciler.cli.console import clean
from reconciler.cli.output.status_rows import JsonObject, groups_of, mapping, service_state

_ENDED = frozenset({"converged", "degraded", "superseded"})


class Row(NamedTuple):
    """The progress of one service: ``share`` from 0 to 1, ``left`` the remaining seconds, None if unknown.

    ``word`` is its state, ``note`` the reason or the attempt.
    """

    service: str
    share: float
    word: str
    note: str = ""
    left: float | None = None
    style: str = ""


def is_finished(progress: JsonObject) -> bool:
    """Return whether the generation has ended."""
    return progress.get("state") in _ENDED


def step_rows(progress: JsonObject, status: JsonObject, since: float) -> list[Row]:
    """Return a row for each service with steps, in the order of groups.

    ``since`` is the age of the status in seconds; it advances uptimes.
    """
    records = _by_service(progress)
    services = {
        str(service.get("name")): service
        for group in groups_of(status).values()
        for service in group.get("services") or ()
    }
    names = [name for name in services if name in records]
    names += [name for name in records if name not in services]
    return [_row(name, records[name], mapping(services.get(name)), since) for name in names]


def _by_service(progress: JsonObject) -> dict[str, list[JsonObject]]:
    by_service: dict[str, list[JsonObject]] = {}
    for record in progress.get("steps") or ():
        by_service.setdefault(str(record.get("service", "?")), []).append(record)
    return by_service


def _row(name: str, records: list[JsonObject], service: JsonObject, since: float) -> Row:
    by_state: dict[str, JsonObject] = {str(record.get("state")): record for record in records}
    settled = service.get("phase") in {"converged", "suspended"}
    if "running" in by_state:
        record = by_state["running"]
        return Row(name, 0.3, _action_word(record), _attempt(record), style="yellow")
    if settled or (not service and set(by_state) == {"done"}):
        word = service_state(service) if service else "done"
        return Row(name, 1.0, "ready" if service.get("ready") else "off" if word in _DOWN else word)
    if service.get("phase") in {"degraded", "blocked"}:
        note = clean(service.get("message") or "")
        return Row(name, 0.0, str(service["phase"]), note, style="red")
    if service.get("reason") == "starting":
        return _starting(name, service, since)
    waiting = by_state.get("waiting")
    if "failed" in by_state and waiting is None:
        return Row(name, 0.0, "failed", clean(by_state["failed"].get("error") or ""), style="red")
    note = clean(service.get("message") or (waiting or {}).get("reason") or "")
    return Row(name, 0.0, "waiting", note, style="dim")


_DOWN = frozenset({"absent", "exited", "created", "dead"})


def _starting(name: str, service: JsonObject, since: float) -> Row:
    expected, uptime = service.get("expected_seconds"), service.get("uptime")
    note = clean(service.get("message") or "")
    if not isinstance(expected, int | float) or not isinstance(uptime, int | float) or expected <= 0:
        return Row(name, 0.5, "starting", note, style="yellow")
    passed = uptime + since
    # At most 95 %: the health check decides when the service is ready, not the estimate.
    return Row(name, min(0.95, passed / expected), "starting", note, max(0.0, expected - passed), "yellow")


def _action_word(record: JsonObject) -> str:
    action = clean(record.get("action") or "")
    return {"stop": "stopping", "create": "creating", "recreate": "replacing", "remove": "removing"}.get(
        action, f"{action}ing"
    )


def _attempt(record: JsonObject) -> str:
    attempts = record.get("attempts")
    return f"attempt {attempts}" if isinstance(attempts, int) and attempts > 1 else ""


class ProgressNarrator:
    """Reports each event of a generation once, by comparing successive responses."""

    def __init__(self) -> None:
        self._reported: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._ready: set[str] = set()

    def news(self, progress: JsonObject, status: JsonObject) -> Iterator[tuple[str, str]]:
        """Yield (service, message) for each step that started, ended, failed or waits for a new reason."""
        for record in progress.get("steps") or ():
            name, action = str(record.get("service", "?")), clean(record.get("action") or "")
            state = str(record.get("state"))
            waiting = state == "waiting"
            key = (name, "" if waiting else action)
            what = (state, record.get("reason") if waiting else record.get("attempts"))
            if self._reported.get(key) != what:
                self._reported[key] = what
                yield name, _sentence(record, action, state)
        yield from self._newly_ready(progress, status)

    def _newly_ready(self, progress: JsonObject, status: JsonObject) -> Iterator[tuple[str, str]]:
        touched = _by_service(progress)
        for group in groups_of(status).values():
            for service in group.get("services") or ():
                name = str(service.get("name"))
                ready = bool(service.get("ready")) and service.get("phase") == "converged"
                if ready and name in touched and name not in self._ready:
                    yield name, "ready"
                if ready:
                    self._ready.add(name)
                else:
                    self._ready.discard(name)


def _sentence(record: Mapping[str, Any], action: str, state: str) -> str:
    if state == "waiting":
        return clean(record.get("reason") or "") or f"waiting to {action}"
    attempt = _attempt(record)
    text = f"{action} {'began' if state == 'running' else state}" + (f" ({attempt})" if attempt else "")
    error = clean(record.get("error") or "")
    return f"{text}: {error}" if error and state == "failed" else text
