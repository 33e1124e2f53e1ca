"""Observed state: what an engine reported at one instant, and the actions it supports. Immutable, lossless.

Two containers of one service are both listed; the plan chooses between them. Nothing in this module
assumes a single host: a container has an id that its engine knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from reconciler.model.capabilities import ALL, Capabilities


class State(StrEnum):
    """Docker's container states, under Docker's names.

    UNKNOWN is an addition: the engine reports a state or a field that can't be parsed. The planner leaves
    such a container alone, and ``Container.error`` names the problem.
    """

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Health(StrEnum):
    """The engine's health status; NONE without a health check."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


ALIVE = frozenset({State.RUNNING, State.PAUSED, State.RESTARTING})
"""States in which a container uses memory, ports and network names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of the project. Times are wall time in seconds since the epoch, 0: never.

    ``probed``: this daemon ran its health check early, and it succeeded since the last start.
    ``check`` is the argument vector of the container's health check, ready for exec; () if none.
    ``image`` is the id of its image, ``networks`` the names it is attached to, ``joins`` the ids of the
    containers whose network, processes or memory it shares. ``borrowed`` lists the settings that refer to
    other containers, in the engine's order: Compose's key (``network_mode``, ``ipc``, ``pid``,
    ``volumes_from``) and the id or name of the other container. ``grace`` is its stop
    time-out in seconds; None: the engine's default. ``compose`` is the version of Docker Compose that
    created it, ``model`` the Compose files that it was created from. ``oom_killed``: since its last start
    the kernel's OOM killer ended one of its processes, not necessarily the first one.

    ``number`` is the replica number that Compose gave it, from 1; 0: none. Two containers with the same
    number are left by an interrupted recreation.

    ``stop_requested_at``: when a client last sent it a stop or a signal that ends a process; 0: not known.
    """

    id: str
    name: str
    service: str
    state: State
    health: Health = Health.NONE
    image: str = ""
    config_hash: str = ""
    exit_code: int = 0
    oom_killed: bool = False
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    restart: str = "no"
    restart_count: int = 0
    networks: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    error: str = ""
    probed: bool = False
    pid: int = 0
    joins: tuple[str, ...] = ()
    borrowed: tuple[tuple[str, str], ...] = ()
    compose: str = ""
    grace: float | None = None
    model: str = ""
    number: int = 0
    stop_requested_at: float = 0.0

    @property
    def run(self) -> str:
        """Identifies the current or last run; every start gives a new value."""
        return f"{self.id}@{self.started_at}"


LABEL_UNKNOWN = ""
"""In ``ObservedState.labels``: Compose's label for this container can't be computed."""


class HostPath(NamedTuple):
    """The state of a mounted path: ``kind`` is file, folder, missing, unreadable or other.

    For a regular file ``digest`` is that of its content (empty: too large to be tracked), ``inode`` its
    identity, and ``changed_at`` the wall time of the last change of content or identity. ``moving``: a
    change is in progress, and the other fields are those from before.
    """

    kind: str
    digest: str = ""
    inode: str = ""
    changed_at: float = 0.0
    moving: bool = False


class LeftBehind(NamedTuple):
    """Another project created from the files of this stack: its containers and volumes, by name."""

    project: str
    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """One observation of the engine.

    ``containers`` are those with the project's label (without one-off ``run`` containers), sorted by id.
    ``images`` maps each image reference of the stack to its current id; a missing image has no entry.
    ``foreign`` maps the names of containers outside the project to their ids: such a name may conflict.
    ``complete`` is False if a part of the observation failed: then it must not lead to any step. ``began``
    and ``at`` are monotonic seconds, before the first request and after the last response.

    ``sources`` is the state of the mounted paths, empty if they are not visible to the daemon. ``held`` maps
    container id and target to the inode of the file that the running container has mounted there, where the
    system reports it. ``labels`` maps container ids to the config-hash label that Compose writes for the
    current definition and the containers it uses, if that differs from the definition's own hash; empty: it
    can't be computed. ``again`` is the monotonic second of the next check of the files, and ``notes`` are
    warnings about them.

    ``left`` are other projects created from the files of this stack. They are searched for only while the
    name of the stack is new.
    ``capabilities`` are those of the engine.
    """

    containers: tuple[Container, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    began: float = 0.0
    at: float = 0.0
    sources: Mapping[str, HostPath] = field(default_factory=dict)
    held: Mapping[tuple[str, str], str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    again: float | None = None
    notes: tuple[str, ...] = ()
    left: tuple[LeftBehind, ...] = ()
    capabilities: Capabilities = ALL


class Action(StrEnum):
    """The actions of an engine. Each is atomic for the plan; none is a workflow."""

    PULL = "pull"
    BUILD = "build"
    CREATE = "create"
    RECREATE = "recreate"
    START = "start"
    POST_START = "post_start"
    STOP = "stop"
    KILL = "kill"
    UNPAUSE = "unpause"
    RENAME = "rename"
    UPDATE = "update"
    REMOVE = "remove"


class Command(NamedTuple):
    """One command to an engine.

    ``services`` are the affected services: one, or several for PULL, BUILD, CREATE and RECREATE, which
    engines can batch. ``container`` is the id that the decision rests on; an engine raises
    ``ContainerGone`` if it does not exist any more. ``grace`` is the stop time-out in seconds before the
    engine kills. ``value`` is the new name (RENAME) or policy (UPDATE). ``replaces`` are the ids of the
    containers that RECREATE replaces; empty: all of the services.
    """

    action: Action
    services: tuple[str, ...]
    container: str = ""
    grace: float = 10.0
    value: str = ""
    replaces: tuple[str, ...] = ()


class Usage(NamedTuple):
    """The measured usage of one container: memory in bytes, CPU in percent of one core."""

    memory: int
    cpu: float


class EngineInfo(NamedTuple):
    """Identifies the engine, for display and ``doctor``. ``memory`` is the host's total in bytes."""

    kind: str
    version: str = ""
    api: str = ""
    compose: str = ""
    address: str = ""
    memory: int = 0
    cpus: int = 0
