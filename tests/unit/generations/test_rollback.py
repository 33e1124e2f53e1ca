"""Earlier desired states, from what was frozen of them: listed, rehearsed, gone back to byte for byte."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.app import create_app
from api.context import Settings
from api.endpoints import history as described
from reconciler.controller.loop import Loop
from reconciler.controller.loop_hooks import LoopHooks
from reconciler.controller.snapshot import SnapshotPublisher
from reconciler.desired_state.store import Store
from reconciler.engine.simulated.engine import SimulatedEngine
from reconciler.generations.acceptance import Acceptor
from reconciler.generations.desired_state_files import DesiredStateFiles
from reconciler.generations.outcomes import OutcomeRecorder
from reconciler.generations.rollback import History
from reconciler.generations.store import Generations
from reconciler.model.ledger import Clock
from tests.support.fixtures.desired_state import COMPOSE, GROUPS, FakeResolver, a_directory, switch

ON = GROUPS.replace("web: off", "web: on")


@dataclass
class House:
    """A daemon without its process: files, generations, loop and API."""

    directory: Path
    desired_state: DesiredStateFiles
    generations: Generations
    snapshots: SnapshotPublisher
    client: httpx.AsyncClient

    async def edit(self, name: str, content: str) -> None:
        (self.directory / name).write_text(content)
        await self.desired_state.reload()

    async def start(self, group: str, author: str = "ann") -> None:
        await self.desired_state.write(switch(group, author=author))

    async def ended(self, generation: int) -> None:
        async with asyncio.timeout(10):
            while (found := self.snapshots.progress(generation)) is None or found.state == "progressing":
                await self.snapshots.newer_than(self.snapshots.current.serial)
            # It is noted by a thread of its own.
            while not any(r.generation == generation and r.outcome for r in self.generations.history()):
                await asyncio.sleep(0.01)

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path: str, status: int = 202) -> Any:
        answer = await self.client.post(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.directory)): p.read_bytes() for p in self.directory.iterdir()}


@asynccontextmanager
async def a_house(tmp_path: Path) -> AsyncIterator[House]:
    def now() -> Clock:
        return Clock(time.time(), asyncio.get_running_loop().time())

    directory = a_directory(tmp_path / "files")
    generations, snapshots = Generations(tmp_path / "state"), SnapshotPublisher()
    engine = SimulatedEngine(wall=time.time)
    ends = OutcomeRecorder(generations, lambda _: None)
    loop = Loop(
        engine, snapshots, wall=time.time, chance=lambda: 0.5, hooks=LoopHooks(on_generation_end=ends)
    )
    files = DesiredStateFiles(Store(directory, FakeResolver()), Acceptor(generations, loop, wall=time.time))
    history = History(generations, files, loop, now=now)
    app = create_app(writer=files, snapshots=snapshots, settings=Settings(), history=history)
    running = asyncio.create_task(loop.run())
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            house = House(directory, files, generations, snapshots, client)
            await files.reload()
            await house.ended(1)
            yield house
    finally:
        await loop.stop(1)
        await running
        await engine.close()


async def test_history_tells_who_when_what_and_how_it_ended(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.start("web")
        await house.ended(2)
        await house.edit("groups.yaml", ON.replace("base: on", "base: {state: on, suspend: true}"))
        await house.ended(3)
        page = await house.get("/services/history")
        described.HistoryPage.model_validate(page)
        assert page["generation"] == 3
        told = [(e["generation"], e["author"], e["reason"], e["changes"]) for e in page["entries"]]
        assert told == [
            (1, "file", "edited", ["first desired state"]),
            (2, "ann", "start web", ["web: off → on"]),
            (3, "file", "edited", ["base: suspended"]),
        ]
        assert [(e["current"], e["state"]) for e in page["entries"]] == [
            (False, "converged"),
            (False, "converged"),
            (True, "converged"),
        ]
        assert page["before"] is None
        newest = await house.get("/services/history?limit=1")
        assert ([e["generation"] for e in newest["entries"]], newest["before"]) == ([3], 3)
        older = await house.get("/services/history?before=3&limit=2")
        assert [e["generation"] for e in older["entries"]] == [1, 2]


async def test_going_back_is_shown_first_and_changes_nothing(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.start("web")
        await house.ended(2)
        before = house.files()
        plan = await house.get("/services/history/1")
        described.RollbackPreview.model_validate(plan)
        assert (plan["changes"], plan["files"]) == (["web: on → off"], ["groups.yaml"])
        assert ("app", "web", "stop") in [(s["service"], s["group"], s["action"]) for s in plan["steps"]]
        assert plan["entry"]["generation"] == 1
        assert house.files() == before
        assert house.snapshots.current.generation == 2


async def test_going_back_brings_back_the_very_bytes_as_a_new_generation(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        first = house.files()
        await house.start("web")
        (house.directory / "db.env").write_text("PASSWORD=other\n")
        (house.directory / "stack.yaml").write_text(
            (house.directory / "stack.yaml").read_text() + "# a comment that was not there\n"
        )
        await house.edit("compose.yaml", COMPOSE.replace("app:1", "app:2"))
        answer = await house.post("/services/rollback/1")
        assert house.files() == first
        assert answer["generation"] == 4
        assert answer["services_affected"]
        await house.ended(4)
        entry = (await house.get("/services/history"))["entries"][-1]
        assert (entry["author"], entry["reason"]) == ("anonymous", "rollback 1")
        assert "web: on → off" in entry["changes"]
        again = await house.post("/services/rollback/1", 200)
        assert again["generation"] == 4


async def test_a_file_that_was_not_there_then_goes_and_comes_back(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        first = house.files()
        (house.directory / ".env").write_text("TAG=2\n")
        await house.edit("compose.yaml", COMPOSE.replace("app:1", "app:2"))
        second = house.files()
        await house.post("/services/rollback/1")
        assert house.files() == first
        await house.post("/services/rollback/2")
        assert house.files() == second
        # It may hold passwords, and what its mode was is not known.
        assert (house.directory / ".env").stat().st_mode & 0o777 == 0o600


async def test_what_cant_be_gone_back_to_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        problem = await house.post("/services/rollback/7", 404)
        assert (problem["reason"], problem["remedy"]) == ("unknown_generation", "generations 1 to 1 are kept")
        assert (await house.post("/services/rollback/0123abc", 404))["reason"] == "unknown_commit"
        assert (await house.client.post("/services/rollback/one")).status_code == 422
        await house.start("web")
        await house.edit("groups.yaml", "groups: {base: on}\n")
        before = house.files()
        assert (await house.post("/services/rollback/1", 409))["reason"] == "desired_state_invalid"
        assert house.files() == before


async def test_a_damaged_generation_says_so(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        await house.start("web")
        record = house.generations.history()[0]
        content = tmp_path / "state" / "contents" / record.sources["groups.yaml"]
        os.chmod(content, 0o600)
        content.write_bytes(b"spoilt")
        assert (await house.get("/services/history/1", 409))["reason"] == "damaged_generation"
        assert (await house.post("/services/rollback/1", 409))["reason"] == "damaged_generation"
