"""Settings of the API, given by the composition root, and the context that its endpoints share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Scope

from api.middleware.forwarded import Network
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.generations.preview_results import PreviewResult
from reconciler.generations.writes import Writer


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the API is reached and served.

    ``host`` is the bound address, ``own`` are the machine's own names, ``names`` those of reverse proxies in
    front of the daemon. All are accepted as Host at any port; only pages of ``names`` may write under another
    Host, at any port or at that of the name. ``proxies`` are the addresses of proxies whose ``X-Forwarded-*``
    headers count, ``root_path`` is the path below which they serve the daemon. ``dashboard`` is the folder of
    the dashboard's files, None without one. ``clock`` returns wall seconds. ``age`` returns the seconds since
    the loop last observed the engine; above ``max_age`` the daemon counts as not ready. ``heartbeat`` is the
    number of idle seconds after which an event stream sends a comment, ``patience`` the number of seconds in
    which a client must take one event.
    """

    host: str = "127.0.0.1"
    own: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    proxies: tuple[Network, ...] = ()
    root_path: str = ""
    dashboard: Path | None = None
    clock: Callable[[], float] = time.time
    age: Callable[[], float] | None = None
    max_age: float = 180.0
    heartbeat: float = 15.0
    patience: float = 30.0


Preview = Callable[[Mapping[str, Any]], Awaitable[PreviewResult]]
"""Previews a ``groups.yaml``, given as plain values, without changing anything.

Raises ``InvalidDesiredState`` if the loop would not accept it.
"""


LogReader = Callable[[str, int, bool], AsyncIterator[str]]
"""Yields log lines of a container, given its id, how many of the last lines to start with, and ``follow``.

Raises ``ContainerGone`` if there is no such container, ``EngineUnavailable`` if the engine does not answer.
"""


CapturedLogReader = Callable[[str], Awaitable[Sequence[str] | None]]
"""Returns the captured last log lines of a service's exited or recreated container; None: no capture."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the endpoints of one application share. ``closing`` is set when the daemon shuts down.

    ``may_read`` returns whether the caller of a streaming response may still read.
    """

    writer: Writer
    snapshots: SnapshotPublisher
    settings: Settings
    preview: Preview | None = None
    logs: LogReader | None = None
    captured_logs: CapturedLogReader | None = None
    may_read: Callable[[Scope], bool] = lambda _: True
    closing: asyncio.Event = field(default_factory=asyncio.Event)
