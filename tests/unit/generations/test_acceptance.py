"""Taking in what the files say while the state directory can't be written, and what waits for what."""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.audit.chain import AuditEvent
from reconciler.controller.loop import Loop
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import WriteRefused
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.store import Generations
from tests.support.fixtures.desired_state import GROUPS, a_directory, a_store, switch


@dataclass
class Scene:
    """A directory, an intake over it, and a disk that can be full."""

    directory: Path
    intake: Acceptor
    loop: Loop
    snapshots: SnapshotPublisher
    full: bool = False

    @property
    def generation(self) -> int:
        target = self.loop.target
        return target[1].generation if target else 0


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Scene:
    number: int = request.param
    snapshots = SnapshotPublisher()
    loop = Loop(SimulatedEngine(), snapshots, wall=lambda: 1.0, chance=lambda: 0.5)
    directory = a_directory(tmp_path / "desired")
    (tmp_path / "state").mkdir()
    generations = Generations(tmp_path / "state")
    intake = Acceptor(a_store(directory), generations, loop, wall=lambda: 1.0)
    scene = Scene(directory, intake, loop, snapshots)
    accept = generations.record

    def accepting(*arguments: Any, **more: Any) -> Any:
        if scene.full:
            raise OSError(number, os.strerror(number))
        return accept(*arguments, **more)

    monkeypatch.setattr(generations, "record", accepting)
    await intake.reload()
    return scene


async def test_an_edit_that_can_not_be_kept_is_told_and_taken_in_later(scene: Scene) -> None:
    before = scene.generation
    scene.full = True
    (scene.directory / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
    await scene.intake.reload()
    assert scene.generation == before
    assert any("can't be written" in told for told in scene.snapshots.current.warnings)
    scene.full = False
    await scene.intake.reload()
    assert scene.generation == before + 1
    assert not any("can't be written" in told for told in scene.snapshots.current.warnings)


async def test_a_write_that_can_not_be_kept_is_refused_and_leaves_the_file_as_it_was(scene: Scene) -> None:
    scene.full = True
    with pytest.raises(WriteRefused) as refused:
        await scene.intake.write(switch("base", on=False))
    assert refused.value.reason == "state_not_writable"
    assert (scene.directory / "groups.yaml").read_text() == GROUPS
    scene.full = False
    receipt = await scene.intake.write(switch("base", on=False))
    assert receipt.changed


async def test_the_log_goes_before_the_loop_but_not_for_ever(tmp_path: Path) -> None:
    """Who asked waits for the entry, converging only for a moment."""
    loop = Loop(SimulatedEngine(), SnapshotPublisher(), wall=lambda: 1.0, chance=lambda: 0.5)
    directory = a_directory(tmp_path / "desired")
    entries: list[Future[bool]] = []
    heard_by_then: list[bool] = []

    def record(fact: AuditEvent) -> Future[bool]:
        target = loop.target
        heard_by_then.append(target is not None and target[1].generation == fact.generation)
        entries.append(Future())
        return entries[-1]

    intake = Acceptor(
        a_store(directory), Generations(tmp_path / "state"), loop, wall=lambda: 1.0, record=record
    )
    await intake.reload()
    asked = asyncio.create_task(intake.write(switch("base", on=False)))
    async with asyncio.timeout(5):
        while loop.target is None or loop.target[1].groups["base"].on:
            await asyncio.sleep(0)
    assert heard_by_then == [False, False]
    assert not asked.done()
    entries[-1].set_result(True)
    assert (await asked).generation == 2
