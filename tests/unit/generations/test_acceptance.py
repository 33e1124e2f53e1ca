"""Accepting the files: a state directory that can't be written, and the order of durable steps."""

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
from reconciler.audit.event_stream import AuditEventStream, Delivery
from reconciler.controller.loop import Loop
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.errors import WriteRefused
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.desired_state_files import DesiredStateFiles
from reconciler.generations.store import Generations
from tests.support.fixtures.desired_state import GROUPS, a_directory, a_store, switch


@dataclass
class Setup:
    """A directory, its acceptance, and a state directory on a disk that can be full."""

    directory: Path
    files: DesiredStateFiles
    loop: Loop
    snapshots: SnapshotPublisher
    full: bool = False

    @property
    def generation(self) -> int:
        target = self.loop.target
        return target.desired.generation if target else 0


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
async def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Setup:
    number: int = request.param
    snapshots = SnapshotPublisher()
    loop = Loop(SimulatedEngine(), snapshots, wall=lambda: 1.0, chance=lambda: 0.5)
    directory = a_directory(tmp_path / "desired")
    (tmp_path / "state").mkdir()
    generations = Generations(tmp_path / "state")
    files = DesiredStateFiles(a_store(directory), Acceptor(generations, loop, wall=lambda: 1.0))
    setup = Setup(directory, files, loop, snapshots)
    record = generations.record

    def record_or_fail(*arguments: Any, **more: Any) -> Any:
        if setup.full:
            raise OSError(number, os.strerror(number))
        return record(*arguments, **more)

    monkeypatch.setattr(generations, "record", record_or_fail)
    await files.reload()
    return setup


async def test_an_edit_that_can_not_be_stored_is_reported_and_accepted_later(setup: Setup) -> None:
    before = setup.generation
    setup.full = True
    (setup.directory / "groups.yaml").write_text(GROUPS.replace("web: off", "web: on"))
    await setup.files.reload()
    assert setup.generation == before
    assert any("can't be written" in warning for warning in setup.snapshots.current.warnings)
    setup.full = False
    await setup.files.reload()
    assert setup.generation == before + 1
    assert not any("can't be written" in warning for warning in setup.snapshots.current.warnings)


async def test_a_write_that_can_not_be_stored_is_refused_and_undone(setup: Setup) -> None:
    setup.full = True
    with pytest.raises(WriteRefused) as refused:
        await setup.files.write(switch("base", on=False))
    assert refused.value.reason == "state_not_writable"
    assert (setup.directory / "groups.yaml").read_text() == GROUPS
    setup.full = False
    result = await setup.files.write(switch("base", on=False))
    assert (result.changed, result.groups) == (True, ("base",))


async def test_the_caller_waits_for_the_audit_entry_and_the_loop_only_for_a_moment(tmp_path: Path) -> None:
    loop = Loop(SimulatedEngine(), SnapshotPublisher(), wall=lambda: 1.0, chance=lambda: 0.5)
    directory = a_directory(tmp_path / "desired")
    entries: list[Future[bool]] = []
    adopted_before: list[bool] = []

    def store(event: AuditEvent, delivery: Delivery) -> Future[bool]:
        assert delivery.durable
        target = loop.target
        adopted_before.append(target is not None and target.desired.generation == event.generation)
        entries.append(Future())
        return entries[-1]

    events = AuditEventStream()
    events.subscribe(store)
    acceptor = Acceptor(Generations(tmp_path / "state"), loop, wall=lambda: 1.0, events=events)
    files = DesiredStateFiles(a_store(directory), acceptor)
    await files.reload()
    write = asyncio.create_task(files.write(switch("base", on=False)))
    async with asyncio.timeout(5):
        while loop.target is None or loop.target.desired.groups["base"].on:
            await asyncio.sleep(0)
    assert adopted_before == [False, False]
    assert not write.done()
    entries[-1].set_result(True)
    assert (await write).generation == 2
