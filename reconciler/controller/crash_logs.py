"""Stores the last log lines of containers that exit, crash or are recreated, one file per service.

``log_capture`` decides when to store a log, and waits at most ``PATIENCE`` seconds for it. ``logs
--previous`` prints the stored lines. No call raises: a lost log costs evidence, never correctness.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from reconciler.errors import EngineError
from reconciler.host.atomic_files import mkdir_private, write_file
from reconciler.host.stored_json import decode, encode
from reconciler.host.untrusted import MALFORMED, read_regular
from reconciler.model.json_text import load_json
from reconciler.model.observed import Container

log = logging.getLogger(__name__)

FOLDER = "evidence"
PATIENCE = 3.0
"""Time-out in seconds for reading a log: saving evidence must not delay the repair for long."""

LINES = 200
SIZE = 2**18
"""Characters stored of one log, from its end."""

Lines = Callable[[Container, int], AsyncIterator[str]]
"""Reads the last lines of a container: (container, number of lines)."""


@dataclass(frozen=True, slots=True)
class CapturedLogs:
    """The stored log of one container. ``finished_at`` is wall seconds since the epoch, 0: not ended."""

    container: str
    name: str
    exit_code: int
    oom_killed: bool
    finished_at: float
    lines: tuple[str, ...]


_ADAPTER = TypeAdapter(CapturedLogs)


class CrashLogStore:
    """The stored logs of one state directory; ``lines`` reads an engine's logs."""

    def __init__(
        self, state_dir: Path, lines: Lines, write: Callable[[Path, bytes], None] = write_file
    ) -> None:
        self._folder = state_dir / FOLDER
        self._read_log = lines
        self._write = write

    async def store(self, container: Container) -> None:
        """Store the log and the exit of a container; replaces the previous file of its service.

        Keeps the previous file if the log can't be read and the container has not ended.
        """
        lines = await self._read(container)
        if lines is None:
            return
        captured = CapturedLogs(
            container.id,
            container.name,
            container.exit_code,
            container.oom_killed,
            container.finished_at,
            tuple(lines),
        )
        content = encode(_ADAPTER, captured)
        try:
            await asyncio.to_thread(self._save, container.service, content)
        except OSError as error:
            log.warning(
                "a crash log can't be stored", extra={"service": container.service, "error": str(error)}
            )

    async def previous(self, service: str) -> CapturedLogs | None:
        """Return the stored log of a service; None without a readable one."""
        return await asyncio.to_thread(self._load, service)

    async def lines(self, service: str) -> tuple[str, ...] | None:
        """Return only the lines of ``previous``."""
        stored = await self.previous(service)
        return stored.lines if stored else None

    async def _read(self, container: Container) -> list[str] | None:
        read: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE), aclosing(self._read_log(container, LINES)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    read.append(line)  # noqa: PERF401 - what came before a time-out counts
        except TimeoutError:
            log.warning("reading a log for the crash logs timed out", extra={"service": container.service})
        except EngineError as error:
            log.info(
                "the log can't be read for the crash logs",
                extra={"service": container.service, "error": str(error)},
            )
            # The log driver stores no log; the exit code is still worth storing.
            return read if container.finished_at else None
        return _end_of(read)

    def _save(self, service: str, content: bytes) -> None:
        mkdir_private(self._folder)
        self._write(self._path(service), content)

    def _load(self, service: str) -> CapturedLogs | None:
        try:
            return decode(_ADAPTER, load_json(read_regular(self._path(service))))
        except FileNotFoundError:
            return None
        except (OSError, *MALFORMED) as error:
            log.warning("a crash log can't be read", extra={"service": service, "error": str(error)})
            return None

    def _path(self, service: str) -> Path:
        # Compose rejects service names that contain a slash or begin with a dot.
        return self._folder / f"{Path(service).name}.json"


def _end_of(lines: list[str]) -> list[str]:
    room = SIZE
    for index in range(len(lines) - 1, -1, -1):
        room -= len(lines[index])
        if room < 0:
            return lines[index + 1 :]
    return lines
