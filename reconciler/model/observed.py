"""What an engine reported at one instant, and the verbs it understands. Immutable and lossless.

Two containers of one service are both here: choosing between them is the plan's business. Nothing
in this module assumes one host: a container has an id and an engine that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Docker's container states, under Docker's names.

    UNKNOWN is ours: the engine reports a state, or a field, that can't be read. Nothing is done to such a
    container, and ``Container.error`` says what is odd.
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
    """The engine's own verdict; NONE where the container has no check."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


ALIVE = frozenset({State.RUNNING, State.PAUSED, State.RESTARTING})
"""States in which a container holds memory, ports and names on the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of the project. Times are wall time in seconds since the epoch, 0: never.

    ``probed`` is ours: its health check was run early and succeeded since this start.
    ``check`` is the argument vector of the container's own health check, ready for exec; () if none.
    ``image`` is the id of the image that it was made from, ``networks`` the names it is attached to,
    ``joins`` the ids of the containers whose network, processes or memory it shares. ``borrowed`` is what it
    uses of other containers, in the engine's order: Compose's key (``network_mode``, ``ipc``, ``pid``,
    ``volumes_from``) and the id, or name, that the container was made with. ``grace`` is how long
    it is given to stop, in seconds; None: what the engine gives everybody. ``compose`` is the version of
    Docker Compose that made it, ``model`` the Compose files that it was made from.
    ``oom_killed``: since its last start the kernel took one of its processes for want of memory, the first or
    another.

    ``number`` is the one that Compose gave this replica of the service, from 1; 0: none. Two containers with
    one number are two ends of an interrupted remake.
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

    @property
    def run(self) -> str:
        """The mark of its present or last run: another one, another mark."""
        return f"{self.id}@{self.started_at}"


LABEL_UNKNOWN = ""
"""In ``ObservedState.labels``: Compose's label for this container can't be computed."""


class HostPath(NamedTuple):
    """What stands at a mounted path: ``kind`` is file, folder, missing, unreadable or other.

    Of a regular file ``digest`` is that of its content (empty: too large to be followed), ``inode`` its
    identity, and ``changed_at`` the wall time of its last change, of content or of identity. ``moving``: it
    is being changed at this moment, and this is how it was before.
    """

    kind: str
    digest: str = ""
    inode: str = ""
    changed_at: float = 0.0
    moving: bool = False


class LeftBehind(NamedTuple):
    """Another project made from the files of this stack: the names of its containers and its volumes."""

    project: str
    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """One look at the engine.

    ``containers`` are those with our project label (one-off ``run`` containers aside), sorted by id.
    ``images`` maps each image reference of the stack to the id it names now; a missing image has no
    entry. ``foreign`` maps the names held by containers that are not ours to their ids: a name we
    need may be among them. ``complete`` is False when any part of the look failed: then nothing may
    be decided on it. ``began`` and ``at`` are monotonic seconds, before the first question and after
    the last answer.

    ``sources`` says what stands at the paths that are mounted, empty where that can't be seen from here;
    ``held`` which file a running container has at a target (container id and target to its inode), as far
    as the system tells. ``labels`` maps ids of containers to the config-hash label that Compose writes for
    the definition in force and the containers that they use, where that is not the definition's own hash;
    empty: it can't be known. ``again`` is the monotonic second at which files should be looked at again, and
    ``notes`` what people should know of them.

    ``left`` are other projects made from the files of this stack; looked for only while its name is new.
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


class Action(StrEnum):
    """The engine's verbs. Each is atomic from the plan's point of view; none contains a workflow."""

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
    """One order to an engine.

    ``services`` are the services that it is for: one, or several for PULL, BUILD, CREATE and
    RECREATE, which engines can batch. ``container`` is the id that the order was decided on; an
    engine refuses with ``ContainerGone`` when it is no longer there. ``grace`` is how long a STOP may take
    before the engine kills, in seconds. ``value`` is the new name (RENAME) or policy (UPDATE).
    ``replaces`` are the ids of the containers that a RECREATE is for; empty: all of the services.
    """

    action: Action
    services: tuple[str, ...]
    container: str = ""
    grace: float = 10.0
    value: str = ""
    replaces: tuple[str, ...] = ()


class Usage(NamedTuple):
    """Measured use of one container: memory in bytes, CPU in percent of one core."""

    memory: int
    cpu: float


class EngineInfo(NamedTuple):
    """Who answers: for people, and for ``doctor``. ``memory`` is the host's total in bytes."""

    kind: str
    version: str = ""
    api: str = ""
    compose: str = ""
    address: str = ""
    memory: int = 0
    cpus: int = 0
