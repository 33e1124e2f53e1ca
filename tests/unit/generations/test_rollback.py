"""Earlier generations: history, preview of a rollback, and rollback to the exact bytes."""

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
class DaemonParts:
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
            while (
                progress := self.snapshots.progress(generation)
            ) is None or progress.state == "progressing":
                await self.snapshots.newer_than(self.snapshots.current.serial)
            # A separate thread records the outcome.
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
async def daemon_parts(tmp_path: Path) -> AsyncIterator[DaemonParts]:
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
            daemon = DaemonParts(directory, files, generations, snapshots, client)
            await files.reload()
            await daemon.ended(1)
            yield daemon
    finally:
        await loop.stop(1)
        await running
        await engine.close()


async def test_history_has_author_time_changes_and_outcome(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        await daemon.start("web")
        await daemon.ended(2)
        await daemon.edit("groups.yaml", ON.replace("base: on", "base: {state: on, suspend: true}"))
        await daemon.ended(3)
        page = await daemon.get("/services/history")
        described.HistoryPage.model_validate(page)
        assert page["generation"] == 3
        entries = [(e["generation"], e["author"], e["reason"], e["changes"]) for e in page["entries"]]
        assert entries == [
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
        newest = await daemon.get("/services/history?limit=1")
        assert ([e["generation"] for e in newest["entries"]], newest["before"]) == ([3], 3)
        older = await daemon.get("/services/history?before=3&limit=2")
        assert [e["generation"] for e in older["entries"]] == [1, 2]


async def test_rollback_preview_changes_nothing(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        await daemon.start("web")
        await daemon.ended(2)
        before = daemon.files()
        plan = await daemon.get("/services/history/1")
        described.RollbackPreview.model_validate(plan)
        assert (plan["changes"], plan["files"]) == (["web: on → off"], ["groups.yaml"])
        assert ("app", "web", "stop") in [(s["service"], s["group"], s["action"]) for s in plan["steps"]]
        assert plan["entry"]["generation"] == 1
        assert daemon.files() == before
        assert daemon.snapshots.current.generation == 2


async def test_rollback_restores_the_exact_bytes_as_a_new_generation(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        first = daemon.files()
        await daemon.start("web")
        (daemon.directory / "db.env").write_text("PASSWORD=other\n")
        (daemon.directory / "stack.yaml").write_text(
            (daemon.directory / "stack.yaml").read_text() + "# a new comment\n"
        )
        await daemon.edit("compose.yaml", COMPOSE.replace("app:1", "app:2"))
        answer = await daemon.post("/services/rollback/1")
        assert daemon.files() == first
        assert answer["generation"] == 4
        assert answer["services_affected"]
        await daemon.ended(4)
        entry = (await daemon.get("/services/history"))["entries"][-1]
        assert (entry["author"], entry["reason"]) == ("anonymous", "rollback 1")
        assert "web: on → off" in entry["changes"]
        again = await daemon.post("/services/rollback/1", 200)
        assert again["generation"] == 4


async def test_rollback_removes_and_restores_later_files(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        first = daemon.files()
        (daemon.directory / ".env").write_text("TAG=2\n")
        await daemon.edit("compose.yaml", COMPOSE.replace("app:1", "app:2"))
        second = daemon.files()
        await daemon.post("/services/rollback/1")
        assert daemon.files() == first
        await daemon.post("/services/rollback/2")
        assert daemon.files() == second
        # The file may hold passwords, and its earlier mode is not known.
        assert (daemon.directory / ".env").stat().st_mode & 0o777 == 0o600


async def test_impossible_rollback_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        problem = await daemon.post("/services/rollback/7", 404)
        assert (problem["reason"], problem["remedy"]) == ("unknown_generation", "generations 1 to 1 are kept")
        assert (await daemon.post("/services/rollback/0123abc", 404))["reason"] == "unknown_commit"
        assert (await daemon.client.post("/services/rollback/one")).status_code == 422
        await daemon.start("web")
        await daemon.edit("groups.yaml", "groups: {base: on}\n")
        before = daemon.files()
        assert (await daemon.post("/services/rollback/1", 409))["reason"] == "desired_state_invalid"
        assert daemon.files() == before


async def test_damaged_generation_is_reported(tmp_path: Path) -> None:
    async with daemon_parts(tmp_path) as daemon:
        await daemon.start("web")
        record = daemon.generations.history()[0]
        content = tmp_path / "state" / "contents" / record.sources["groups.yaml"]
        os.chmod(content, 0o600)
        content.write_bytes(b"spoilt")
        assert (await daemon.get("/services/history/1", 409))["reason"] == "damaged_generation"
        assert (await daemon.post("/services/rollback/1", 409))["reason"] == "damaged_generation"
