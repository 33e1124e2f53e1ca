"""Stored logs of containers: what is stored, and that errors on the way do no harm."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.controller import crash_logs as module
from reconciler.controller.crash_logs import SIZE, CrashLogStore, Lines
from reconciler.errors import EngineUnavailable, StepFailed
from reconciler.model.observed import Container, State
from tests.support.fixtures.builders import container, service

ENDED = container(
    service("kafka"), State.EXITED, exit_code=137, oom_killed=True, finished_at=5.0, name="alpr-kafka"
)


def log_of(*lines: str, error: Exception | None = None) -> Lines:
    async def source(_: Container, tail: int) -> AsyncIterator[str]:
        for line in lines[-tail:]:
            yield line
        if error is not None:
            raise error

    return source


async def test_exit_and_last_lines_survive_the_daemon(tmp_path: Path) -> None:
    await CrashLogStore(tmp_path, log_of("one", "two")).store(ENDED)
    stored = await CrashLogStore(tmp_path, log_of()).previous("kafka")
    assert stored == module.CapturedLogs("id-kafka", "alpr-kafka", 137, True, 5.0, ("one", "two"))
    assert await CrashLogStore(tmp_path, log_of()).lines("kafka") == ("one", "two")
    assert await CrashLogStore(tmp_path, log_of()).lines("other") is None


async def test_stored_log_is_private_and_bounded(tmp_path: Path) -> None:
    long = "x" * 10_000
    await CrashLogStore(tmp_path, log_of(*[long] * 200, "last")).store(ENDED)
    path = tmp_path / "evidence" / "kafka.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_size < 2 * SIZE
    lines = await CrashLogStore(tmp_path, log_of()).lines("kafka")
    assert lines is not None
    assert lines[-1] == "last"


async def test_unreadable_log_keeps_the_previous_one(tmp_path: Path) -> None:
    await CrashLogStore(tmp_path, log_of("one")).store(ENDED)
    running = container(service("kafka"))
    await CrashLogStore(tmp_path, log_of(error=EngineUnavailable("gone"))).store(running)
    assert await CrashLogStore(tmp_path, log_of()).lines("kafka") == ("one",)
    await CrashLogStore(tmp_path, log_of(error=StepFailed("no such driver"))).store(ENDED)
    assert await CrashLogStore(tmp_path, log_of()).lines("kafka") == ()


async def test_reading_a_hanging_log_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def source(_: Container, __: int) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "PATIENCE", 0.05)
    await CrashLogStore(tmp_path, source).store(ENDED)
    assert await CrashLogStore(tmp_path, log_of()).lines("kafka") == ("one",)


async def test_full_disk_or_damaged_file_loses_only_the_log(tmp_path: Path) -> None:
    def full(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    await CrashLogStore(tmp_path, log_of("one"), full).store(ENDED)
    assert await CrashLogStore(tmp_path, log_of()).previous("kafka") is None
    (tmp_path / "evidence" / "kafka.json").write_text("{")
    assert await CrashLogStore(tmp_path, log_of()).previous("kafka") is None
