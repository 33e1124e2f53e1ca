"""What the API is told by the composition root, and what its endpoints share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from starlette.types import Scope

from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.generations.edits import Writer
from reconciler.planning.drift import Drift


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the API is reached and served.

    ``host`` is the address bound, ``own`` are the machine's own names, ``names`` those of proxies before
    us: both are answered to at any port, but only pages at the latter may write under another Host.
    ``dashboard`` is the folder of the dashboard's files, None without one. ``clock`` gives wall seconds.
    ``age`` gives the seconds since the loop last finished a look; older than ``max_age`` seconds the daemon
    counts as not ready. ``heartbeat`` is the pause in seconds after which an idle event stream says that it
    is alive, ``patience`` how many seconds a reader of events may take over one.
    """

    host: str = "127.0.0.1"
    own: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    dashboard: Path | None = None
    clock: Callable[[], float] = time.time
    age: Callable[[], float] | None = None
    max_age: float = 180.0
    heartbeat: float = 15.0
    patience: float = 30.0


class PlannedStep(Protocol):
    """What is shown of one step; ``reconciler.planning.planner.Step`` is one."""

    @property
    def service(self) -> str:
        """Whom it is for."""

    @property
    def action(self) -> str:
        """The engine's verb."""

    @property
    def cause(self) -> str:
        """A stable word."""

    @property
    def why(self) -> str:
        """A sentence."""


class Undone(Protocol):
    """What is shown of a service for which nothing more can be done;
    ``reconciler.generations.preview.Unresolved``
    is one."""

    @property
    def service(self) -> str:
        """Which one."""

    @property
    def phase(self) -> str:
        """Blocked, suspended or waiting."""

    @property
    def reason(self) -> str:
        """A stable word."""

    @property
    def message(self) -> str:
        """A sentence."""

    @property
    def waits_for(self) -> Sequence[str]:
        """Services."""


class Planned(Protocol):
    """What is shown of a preview; ``reconciler.generations.preview.PreviewResult`` is one, and prints itself
    as
    text."""

    @property
    def steps(self) -> Sequence[PlannedStep]:
        """What would be done, in order, to the end."""

    @property
    def left(self) -> Sequence[Undone]:
        """What would be left undone then."""

    @property
    def drifts(self) -> Sequence[Drift]:
        """What would differ."""


Preview = Callable[[Mapping[str, Any]], Awaitable[Planned]]
"""From a ``groups.yaml`` as plain values to all that it would lead to now, changing nothing.

Raises ``InvalidDesiredState`` where the loop would not accept it.
"""


Lines = Callable[[str, int, bool], AsyncIterator[str]]
"""From a container's id, how many of its last lines to begin with and whether to go on, to its log lines.

Raises ``ContainerGone`` where there is no such container, ``EngineUnavailable`` where nobody can be asked.
"""


Previous = Callable[[str], Awaitable[Sequence[str] | None]]
"""From a service to the last lines kept of a container of it that ended or was remade; None: nothing kept."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the endpoints of one application share. ``closing`` is set when the daemon goes down.

    ``holds`` tells of a request whose answer goes on and on whether its caller may still read.
    """

    intake: Writer
    snapshots: SnapshotPublisher
    settings: Settings
    preview: Preview | None = None
    logs: Lines | None = None
    previous: Previous | None = None
    holds: Callable[[Scope], bool] = lambda _: True
    closing: asyncio.Event = field(default_factory=asyncio.Event)
