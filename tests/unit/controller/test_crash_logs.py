"""Last words of containers, on disk: what is kept, and that nothing which goes wrong there does harm."""

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


def saying(*lines: str, error: Exception | None = None) -> Lines:
    async def source(_: Container, tail: int) -> AsyncIterator[str]:
        for line in lines[-tail:]:
            yield line
        if error is not None:
            raise error

    return source


async def test_how_it_ended_and_what_it_said_last_outlive_the_daemon(tmp_path: Path) -> None:
    await CrashLogStore(tmp_path, saying("one", "two")).keep(ENDED)
    kept = await CrashLogStore(tmp_path, saying()).previous("kafka")
    assert kept == module.CapturedLogs("id-kafka", "alpr-kafka", 137, True, 5.0, ("one", "two"))
    assert await CrashLogStore(tmp_path, saying()).lines("kafka") == ("one", "two")
    assert await CrashLogStore(tmp_path, saying()).lines("other") is None


async def test_it_is_for_the_owner_alone_and_bounded(tmp_path: Path) -> None:
    long = "x" * 10_000
    await CrashLogStore(tmp_path, saying(*[long] * 200, "last")).keep(ENDED)
    path = tmp_path / "evidence" / "kafka.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_size < 2 * SIZE
    lines = await CrashLogStore(tmp_path, saying()).lines("kafka")
    assert lines is not None
    assert lines[-1] == "last"


async def test_a_log_that_can_not_be_had_takes_nothing_away(tmp_path: Path) -> None:
    await CrashLogStore(tmp_path, saying("one")).keep(ENDED)
    running = container(service("kafka"))
    await CrashLogStore(tmp_path, saying(error=EngineUnavailable("gone"))).keep(running)
    assert await CrashLogStore(tmp_path, saying()).lines("kafka") == ("one",)
    await CrashLogStore(tmp_path, saying(error=StepFailed("no such driver"))).keep(ENDED)
    assert await CrashLogStore(tmp_path, saying()).lines("kafka") == ()


async def test_a_log_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def source(_: Container, __: int) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "PATIENCE", 0.05)
    await CrashLogStore(tmp_path, source).keep(ENDED)
    assert await CrashLogStore(tmp_path, saying()).lines("kafka") == ("one",)


async def test_a_full_disk_and_a_damaged_file_cost_the_evidence_alone(tmp_path: Path) -> None:
    def full(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    await CrashLogStore(tmp_path, saying("one"), full).keep(ENDED)
    assert await CrashLogStore(tmp_path, saying()).previous("kafka") is None
    (tmp_path / "evidence" / "kafka.json").write_text("{")
    assert await CrashLogStore(tmp_path, saying()).previous("kafka") is None
