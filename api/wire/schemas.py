"""Response models for ``/docs`` and ``/openapi.json``; ``request_bodies`` has those of requests.

Responses are not built from these models (``views`` builds them, for speed); a test compares the two.
Units: memory in MB = 10^6 bytes, times in RFC 3339 UTC, durations in seconds, CPU in percent of one core.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["progressing", "converged", "degraded", "superseded"]
Phase = Literal["converged", "progressing", "waiting", "blocked", "degraded", "suspended"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileMistake(_Model):
    """One mistake in a file of desired state. Lines and columns count from 1; 0: unknown."""

    path: str = Field(examples=["groups.yaml"])
    line: int = Field(examples=[3])
    column: int = Field(examples=[10])
    message: str = Field(examples=["'onn' is neither on nor off"])


class InputError(_Model):
    """One mistake in a request."""

    in_: str = Field(alias="in", description="query, path or body", examples=["query"])
    name: str = Field(examples=["wait"])
    message: str = Field(examples=["Input should be less than or equal to 600"])


class Problem(_Model):
    """RFC 9457 problem details. `reason` is a stable word for programs, `remedy` what to do about it."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["storage needs kafka, which is off"])
    reason: str = Field(examples=["dependency_off"])
    remedy: str = Field(
        examples=["add with_dependencies=true to start kafka as well, or force=true to start storage without"]
    )
    errors: list[FileMistake | InputError] | None = None


class Step(_Model):
    """One step of a generation. While it waits, `error` and times are null."""

    service: str = Field(examples=["kafka"])
    action: str = Field(examples=["start"])
    state: str = Field(description="running, done, failed or waiting", examples=["done"])
    attempts: int
    error: str | None
    reason: str
    started_at: datetime | None
    finished_at: datetime | None


class Progress(_Model):
    """Progress of a generation, or how it ended. `reason` and `message` explain a degraded state."""

    generation: int = Field(examples=[42])
    state: State
    reason: str
    message: str
    done: int = Field(description="changed services that are in their desired state")
    total: int = Field(description="services that the generation changes")
    percent: int
    began_at: datetime | None
    ended_at: datetime | None
    expected_at: datetime | None = Field(
        description="estimated end, from the durations of earlier starts; null: unknown"
    )
    steps: list[Step]


class Service(_Model):
    """One service. `uptime` is in seconds, `drift` lists kinds of unexpected differences."""

    name: str = Field(examples=["kafka"])
    container: str = Field(examples=["alpr-kafka"])
    id: str
    image: str
    status: str = Field(description="the container's state, or absent", examples=["running"])
    health: str = Field(examples=["healthy"])
    ready: bool
    done: bool = Field(description="whether it is a one-shot that has completed")
    wanted: bool
    phase: str
    reason: str
    message: str
    waits_for: list[str]
    step: str | None = Field(description="action in progress")
    memory_mb: float | None
    cpu_percent: float | None
    started_at: datetime | None
    uptime: int | None = Field(examples=[3600])
    exit_code: int
    restart_count: int
    ports: list[str] = Field(examples=[["9092:9092"]])
    drift: list[str] = Field(examples=[[]])
    last_error: str | None
    expected_seconds: float | None = Field(description="usual duration of a start, from earlier ones")
    retry_at: datetime | None


class Group(_Model):
    """One group: `desired` comes from the files, `status` from the engine, `phase` compares the two."""

    group: str = Field(examples=["kafka"])
    description: str
    status: Literal["running", "partial", "stopped"]
    desired: Literal["on", "off"]
    force: bool
    phase: Phase
    reason: str
    message: str
    suspended_until: datetime | None
    suspend_reason: str | None
    running_count: int
    total_count: int
    total_memory_mb: float = Field(description="measured")
    total_cpu_percent: float = Field(description="measured; 100 is one core")
    estimated_memory_mb: float = Field(description="estimate in stack.yaml")
    dependencies: list[str]
    dependents: list[str]
    services: list[Service]


class GroupAnswer(Group):
    """One group, with the time of the response."""

    timestamp: datetime


class Engine(_Model):
    """The container engine. `since` is when `reachable` last changed."""

    kind: str = Field(examples=["docker"])
    version: str
    compose: str
    memory_mb: float | None = Field(description="memory of the engine's host; null: unknown")
    reachable: bool
    since: datetime | None
    error: str | None


class Pilot(_Model):
    """The pipeline on the host: the groups that it needs, and the memory that it uses itself."""

    groups: list[str] = Field(examples=[["kafka"]])
    memory_mb: float


class Status(_Model):
    """The whole stack. It has settled if `generation == observed_generation and converged`."""

    timestamp: datetime
    stack: str = Field(examples=["alpr"])
    total_services: int
    running_services: int
    total_memory_mb: float = Field(description="measured, sum of all groups")
    total_cpu_percent: float = Field(description="measured, sum of all groups")
    estimated_memory_mb: float = Field(description="estimate in stack.yaml, sum of the groups that are on")
    pilot_ready: bool
    pilot: Pilot
    generation: int
    observed_generation: int
    converged: bool
    revision: str
    commit: str | None
    accepted_at: datetime | None
    engine: Engine
    progress: Progress
    errors: list[FileMistake] = Field(
        description="mistakes in the files on disk; the last valid state stays in force"
    )
    warnings: list[str]
    groups: dict[str, Group]
    unmanaged: list[Service]
    orphans: list[str]


class GroupInfo(_Model):
    """One group as the files define it."""

    services: list[str]
    estimated_ram_mb: float
    dependencies: list[str]
    dependency_strengths: dict[str, Literal["on", "ready"]]
    dependents: list[str]
    description: str


class SuspendedUntil(_Model):
    """A suspension. `until` null: until it is removed."""

    until: datetime | None
    reason: str = Field(examples=["camera work"])


class DesiredState(_Model):
    """Desired state of a group. `suspend` is false without a suspension."""

    state: Literal["on", "off"]
    force: bool
    suspend: Literal[False] | SuspendedUntil


class Groups(_Model):
    """All groups, in display order."""

    groups: dict[str, GroupInfo]


class PlannedStep(_Model):
    """A planned step."""

    service: str
    action: str
    reason: str
    message: str


class Waiting(_Model):
    """A service that waits or is blocked, and why."""

    service: str
    phase: Phase
    reason: str
    message: str
    waits_for: list[str]


class Plan(_Model):
    """The plan of the loop now; `text` is the same for people."""

    timestamp: datetime
    generation: int
    steps: list[PlannedStep]
    waiting: list[Waiting]
    text: str


class DriftEntry(_Model):
    """One difference. `pending`: an accepted change that is not applied yet, not an unexpected difference."""

    service: str
    group: str | None
    kind: str = Field(examples=["stopped"])
    pending: bool
    message: str
    container: str
    fields: list[str] = Field(description="fields of the definition that differ; names, never values")


class Drift(_Model):
    """All differences between desired and observed state; `by_kind` counts them."""

    timestamp: datetime
    generation: int
    by_kind: dict[str, int]
    drift: list[DriftEntry]


class Preview(_Model):
    """Preview of another desired state, compared with `generation`."""

    timestamp: datetime
    generation: int
    steps: list[PlannedStep] = Field(description="all steps, in order")
    waiting: list[Waiting] = Field(description="services not in their desired state after all steps")
    drift: list[DriftEntry]
    text: str


class WriteAnswer(_Model):
    """Result of a write. `success` is false only if `wait` was given and the generation ended degraded."""

    action: str = Field(examples=["start"])
    target: str = Field(examples=["kafka"])
    success: bool
    message: str = Field(examples=["kafka is switched on (generation 42)"])
    timestamp: datetime
    services_affected: list[str] = Field(examples=[["zookeeper", "kafka", "schema-registry"]])
    generation: int = Field(examples=[42])
    progress: Progress


class Alive(_Model):
    """The daemon responds."""

    status: Literal["ok"]
    version: str
