"""Converts snapshots to the JSON of the REST contract. Pure: times are relative to the ``now`` given.

Plain dictionaries and ``json``, no models, for speed: every read and every event runs this code. Tests check
that the shapes match ``schemas``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.controller.progress import Progress, StepRecord
from reconciler.controller.snapshot import EngineView, GroupView, ServiceView, Snapshot
from reconciler.errors import Mistake
from reconciler.generations.preview_results import PreviewResult
from reconciler.model.units import format_time
from reconciler.planning.drift import Drift
from reconciler.planning.planner import Step

Json = dict[str, Any]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_bytes(value: Json) -> bytes:
    """Encode as compact JSON in UTF-8; a lone surrogate from a log line becomes a question mark."""
    return _encode(value).encode("utf-8", "replace")


def rfc3339(wall: float) -> str:
    """Format wall seconds as RFC 3339 in UTC, to the millisecond."""
    return format_time(wall, "milliseconds")


def moment(wall: float | None) -> str | None:
    """Format as ``rfc3339``; return None for 0 and None, which mean never."""
    return rfc3339(wall) if wall else None


def stamp(now: float) -> str:
    """Format the time of a response in whole seconds, so that reads within a second get the same bytes."""
    return format_time(int(now), "seconds")


def megabytes(size: int | None) -> float | None:
    """Convert bytes to MB = 10^6, rounded to a tenth."""
    return None if size is None else round(size / 1_000_000, 1)


def mistake(found: Mistake) -> Json:
    """Convert one mistake in a file; line and column count from 1, 0: unknown."""
    return found._asdict()


def status(snapshot: Snapshot, now: float) -> Json:
    """Build the response of ``GET /services/status``; ``uptime`` and ``timestamp`` are as of ``now``."""
    groups = snapshot.groups.values()
    return {
        "timestamp": stamp(now),
        "stack": snapshot.stack,
        "total_services": sum(len(group.services) for group in groups),
        "running_services": sum(group.running for group in groups),
        "total_memory_mb": megabytes(sum(group.memory for group in groups)),
        "total_cpu_percent": _cpu(service for group in groups for service in group.services),
        "estimated_memory_mb": megabytes(sum(group.estimate for group in groups if group.desired)),
        "pilot_ready": snapshot.pilot_ready,
        "pilot": {"groups": list(snapshot.pilot_groups), "memory_mb": megabytes(snapshot.pilot_memory)},
        "generation": snapshot.generation,
        "observed_generation": snapshot.observed_generation,
        "converged": snapshot.converged,
        "revision": snapshot.revision,
        "commit": snapshot.commit or None,
        "accepted_at": moment(snapshot.accepted_at),
        "engine": _engine(snapshot.engine),
        "progress": progress(snapshot.progress, snapshot.generation),
        "errors": [mistake(found) for found in snapshot.errors],
        "warnings": list(snapshot.warnings),
        "groups": {group.name: group_status(group, now) for group in groups},
        "unmanaged": [_service(service, now) for service in snapshot.unmanaged],
        "orphans": list(snapshot.orphans),
    }


def group_status(group: GroupView, now: float) -> Json:
    """Build the response of ``GET /services/status/{group}`` without its timestamp."""
    return {
        "group": group.name,
        "description": group.description,
        "status": group.status,
        "desired": "on" if group.desired else "off",
        "force": group.force,
        "phase": group.phase,
        "reason": group.reason,
        "message": group.message,
        "suspended_until": moment(group.suspended_until),
        "suspend_reason": group.suspend_reason or None,
        "running_count": group.running,
        "total_count": len(group.services),
        "total_memory_mb": megabytes(group.memory),
        "total_cpu_percent": _cpu(group.services),
        "estimated_memory_mb": megabytes(group.estimate),
        "dependencies": list(group.depends_on),
        "dependents": list(group.dependents),
        "services": [_service(service, now) for service in group.services],
    }


def desired_state(group: GroupView) -> Json:
    """Build the response of ``GET /services/groups/{group}``, which ``PUT`` accepts as a body."""
    suspend = {"until": moment(group.suspended_until), "reason": group.suspend_reason}
    return {
        "state": "on" if group.desired else "off",
        "force": group.force,
        "suspend": suspend if group.suspended else False,
    }


def _cpu(services: Iterable[ServiceView]) -> float:
    """Sum the measured CPU use, in percent of one core."""
    return round(sum(service.cpu or 0.0 for service in services), 1)


def _service(service: ServiceView, now: float) -> Json:
    return {
        "name": service.name,
        "container": service.container,
        "id": service.id,
        "image": service.image,
        "status": service.status,
        "health": service.health,
        "ready": service.ready,
        "done": service.done,
        "wanted": service.wanted,
        "phase": service.phase,
        "reason": service.reason,
        "message": service.message,
        "waits_for": list(service.waits_for),
        "step": service.step or None,
        "memory_mb": megabytes(service.memory),
        "cpu_percent": None if service.cpu is None else round(service.cpu, 1),
        "started_at": moment(service.started_at),
        # A clock that was set back must not show a negative age.
        "uptime": max(0, int(now - service.started_at)) if service.started_at else None,
        "exit_code": service.exit_code,
        "restart_count": service.restart_count,
        "ports": list(service.ports),
        "drift": list(service.drift),
        "last_error": service.last_error or None,
        "expected_seconds": service.expected,
        "retry_at": moment(service.retry_at),
    }


def _engine(engine: EngineView) -> Json:
    return {
        "kind": engine.kind,
        "version": engine.version,
        "compose": engine.compose,
        "memory_mb": megabytes(engine.memory or None),
        "reachable": engine.reachable,
        "since": moment(engine.since),
        "error": engine.error or None,
    }


def progress(one: Progress, newest: int) -> Json:
    """Build the response of ``GET /services/progress/{generation}``; ``newest`` is the current generation."""
    state = state_of(one, newest)
    return {
        "generation": one.generation,
        "state": state,
        "reason": one.reason,
        "message": one.message,
        "done": one.done,
        "total": one.total,
        "percent": 100 if state == "superseded" else one.percent,
        "began_at": moment(one.began_at),
        "ended_at": moment(one.ended_at),
        "expected_at": moment(one.expected_at),
        "steps": [_record(step) for step in one.steps],
    }


def state_of(one: Progress, newest: int) -> str:
    """Return the state of a generation. An older one still in progress counts as superseded."""
    overtaken = one.state == "progressing" and one.generation < newest
    return "superseded" if overtaken else one.state


def _record(step: StepRecord) -> Json:
    return {
        "service": step.service,
        "action": step.action,
        "state": step.state,
        "attempts": step.attempts,
        "error": step.error or None,
        "reason": step.reason,
        "started_at": moment(step.started_at),
        "finished_at": moment(step.finished_at),
    }


def groups(snapshot: Snapshot) -> Json:
    """Build the response of ``GET /services/groups``: the groups in the files, whatever runs."""
    return {
        "groups": {
            group.name: {
                "services": [service.name for service in group.services],
                "estimated_ram_mb": megabytes(group.estimate),
                "dependencies": list(group.depends_on),
                "dependency_strengths": dict(group.depends_on),
                "dependents": list(group.dependents),
                "description": group.description,
            }
            for group in snapshot.groups.values()
        }
    }


def plan(snapshot: Snapshot, now: float) -> Json:
    """Build the response of ``GET /services/plan``: the steps due now, and what other services wait for."""
    services = [service for group in snapshot.groups.values() for service in group.services]
    return {
        "timestamp": stamp(now),
        "generation": snapshot.generation,
        "steps": _steps(snapshot.steps),
        "waiting": [
            {
                "service": service.name,
                "phase": service.phase,
                "reason": service.reason,
                "message": service.message,
                "waits_for": list(service.waits_for),
            }
            for service in services
            if service.phase in {"waiting", "blocked", "degraded", "suspended"}
        ],
        "text": snapshot.plan,
    }


def preview(planned: PreviewResult, snapshot: Snapshot, now: float) -> Json:
    """Build the response of ``POST /services/plan``, compared with ``snapshot``."""
    group_of = _group_of(snapshot)
    return {
        "timestamp": stamp(now),
        "generation": snapshot.generation,
        "steps": _steps(planned.steps),
        "waiting": [
            {
                "service": rest.service,
                "phase": rest.phase,
                "reason": rest.reason,
                "message": rest.message,
                "waits_for": list(rest.waits_for),
            }
            for rest in planned.left
        ],
        "drift": [_drift(found, group_of) for found in planned.drifts],
        "text": str(planned),
    }


def _steps(steps: Iterable[Step]) -> list[Json]:
    return [
        {"service": step.service, "action": str(step.action), "reason": step.cause, "message": step.why}
        for step in steps
    ]


def drift(snapshot: Snapshot, now: float) -> Json:
    """Build the response of ``GET /services/drift``."""
    group_of = _group_of(snapshot)
    return {
        "timestamp": stamp(now),
        "generation": snapshot.generation,
        "by_kind": dict(Counter(str(found.kind) for found in snapshot.drifts)),
        "drift": [_drift(found, group_of) for found in snapshot.drifts],
    }


def _group_of(snapshot: Snapshot) -> Mapping[str, str]:
    return {service.name: group.name for group in snapshot.groups.values() for service in group.services}


def _drift(found: Drift, group_of: Mapping[str, str]) -> Json:
    return {
        "service": found.service,
        "group": group_of.get(found.service),
        "kind": str(found.kind),
        "pending": found.pending,
        "message": found.detail,
        "container": found.container,
        "fields": list(found.fields),
    }


class StatusCache:
    """Caches the bytes of ``GET /services/status`` per snapshot and second, for any number of requests."""

    def __init__(self) -> None:
        self._key = (-1, -1)
        self._bytes = b""

    def get(self, snapshot: Snapshot, now: float) -> bytes:
        """Return ``status`` as JSON bytes; ``now`` is rounded down to whole seconds."""
        key = (snapshot.serial, int(now))
        if key != self._key:
            self._bytes = to_bytes(status(snapshot, float(key[1])))
            self._key = key
        return self._bytes
