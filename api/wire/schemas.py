"""The answers of this API, described for ``/docs`` and ``/openapi.json``; ``bodies`` has what is sent to it.

Answers are not built from these models (``views`` does that, for speed); a test holds the two together.
Units: memory in MB = 10^6 bytes, times RFC 3339 in UTC, durations in seconds, CPU in percent of one core.
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
    """One thing wrong with a file of desired state. Lines and columns count from 1; 0: not known."""

    path: str = Field(examples=["groups.yaml"])
    line: int = Field(examples=[3])
    column: int = Field(examples=[10])
    message: str = Field(examples=["'onn' is neither on nor off"])


class InputError(_Model):
    """One thing wrong with a request."""

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
    """One step of a generation: tried, being taken, or still waiting (then `error` and times are null)."""

    service: str = Field(examples=["kafka"])
    action: str = Field(examples=["start"])
    state: str = Field(description="running, done, failed or waiting", examples=["done"])
    attempts: int
    error: str | None
    reason: str
    started_at: datetime | None
    finished_at: datetime | None


class Progress(_Model):
    """How far a generation is, or how it ended. `reason` and `message` say why it is degraded."""

    generation: int = Field(examples=[42])
    state: State
    reason: str
    message: str
    done: int = Field(description="services brought to where they should be")
    total: int = Field(description="services that had something to do")
    percent: int
    began_at: datetime | None
    ended_at: datetime | None
    expected_at: datetime | None = Field(
        description="when it should be over, by former starts; null: unknown"
    )
    steps: list[Step]


class Service(_Model):
    """One service. `uptime` in seconds, `drift` the kinds of what moved by itself."""

    name: str = Field(examples=["kafka"])
    container: str = Field(examples=["alpr-kafka"])
    id: str
    image: str
    status: str = Field(description="the container's state, or absent", examples=["running"])
    health: str = Field(examples=["healthy"])
    ready: bool
    done: bool = Field(description="a one-shot that did its work")
    wanted: bool
    phase: str
    reason: str
    message: str
    waits_for: list[str]
    step: str | None = Field(description="what is being done to it now")
    memory_mb: float | None
    cpu_percent: float | None
    started_at: datetime | None
    uptime: int | None = Field(examples=[3600])
    exit_code: int
    restart_count: int
    ports: list[str] = Field(examples=[["9092:9092"]])
    drift: list[str] = Field(examples=[[]])
    last_error: str | None
    expected_seconds: float | None = Field(description="what a start takes, by former ones")
    retry_at: datetime | None


class Group(_Model):
    """One group: `desired` is what the files say, `status` what runs, `phase` how the two stand."""

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
    total_memory_mb: float = Field(description="as measured")
    total_cpu_percent: float = Field(description="as measured; 100 is one core")
    estimated_memory_mb: float = Field(description="what stack.yaml says it needs")
    dependencies: list[str]
    dependents: list[str]
    services: list[Service]


class GroupAnswer(Group):
    """One group, with the time of the answer."""

    timestamp: datetime


class Engine(_Model):
    """The container engine. `since`: since when it has answered, or not."""

    kind: str = Field(examples=["docker"])
    version: str
    compose: str
    memory_mb: float | None = Field(description="of the host that it runs on; null: not known")
    reachable: bool
    since: datetime | None
    error: str | None


class Pilot(_Model):
    """What the pipeline on the host needs: groups that must be ready, and what it uses itself."""

    groups: list[str] = Field(examples=[["kafka"]])
    memory_mb: float


class Status(_Model):
    """The whole stack. `generation == observed_generation and converged` is what scripts ask."""

    timestamp: datetime
    stack: str = Field(examples=["alpr"])
    total_services: int
    running_services: int
    total_memory_mb: float = Field(description="as measured, all groups together")
    total_cpu_percent: float = Field(description="as measured, all groups together")
    estimated_memory_mb: float = Field(description="what stack.yaml says the groups need that are on")
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
    errors: list[FileMistake] = Field(description="of the files on disk; the last good state is kept")
    warnings: list[str]
    groups: dict[str, Group]
    unmanaged: list[Service]
    orphans: list[str]


class GroupInfo(_Model):
    """What the files say of one group."""

    services: list[str]
    estimated_ram_mb: float
    dependencies: list[str]
    dependency_strengths: dict[str, Literal["on", "ready"]]
    dependents: list[str]
    description: str


class Groups(_Model):
    """All groups, in display order."""

    groups: dict[str, GroupInfo]


class PlannedStep(_Model):
    """A step that would be taken now."""

    service: str
    action: str
    reason: str
    message: str


class Waiting(_Model):
    """A service for which nothing can be done now, and why."""

    service: str
    phase: Phase
    reason: str
    message: str
    waits_for: list[str]


class Plan(_Model):
    """What the loop would do now; `text` is the same, to read."""

    timestamp: datetime
    generation: int
    steps: list[PlannedStep]
    waiting: list[Waiting]
    text: str


class DriftEntry(_Model):
    """One difference. `pending`: a change not carried out yet, rather than something that moved by itself."""

    service: str
    group: str | None
    kind: str = Field(examples=["stopped"])
    pending: bool
    message: str
    container: str
    fields: list[str] = Field(description="what differs in the definition; names, never values")


class Drift(_Model):
    """Every difference between desired and observed; `by_kind` counts them."""

    timestamp: datetime
    generation: int
    by_kind: dict[str, int]
    drift: list[DriftEntry]


class Preview(_Model):
    """What another desired state would lead to, compared with `generation`."""

    timestamp: datetime
    generation: int
    steps: list[PlannedStep] = Field(description="in order, to the end")
    waiting: list[Waiting] = Field(description="what is left undone when all steps are done")
    drift: list[DriftEntry]
    text: str


class WriteAnswer(_Model):
    """What became of a write. `success` is false only where `wait` was given and it ended degraded."""

    action: str = Field(examples=["start"])
    target: str = Field(examples=["kafka"])
    success: bool
    message: str = Field(examples=["kafka is switched on; this is generation 42"])
    timestamp: datetime
    services_affected: list[str] = Field(examples=[["zookeeper", "kafka", "schema-registry"]])
    generation: int = Field(examples=[42])
    progress: Progress


class Alive(_Model):
    """The process answers."""

    status: Literal["ok"]
    version: str
