"""Containers and volumes that another project name leaves behind, on a real engine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from reconciler.model.observed import Action, LeftBehind
from reconciler.model.stack import Stack
from tests.support.harness.adapter import AdapterHarness, Make

COMPOSE = """
services:
  web: {image: "bed/standin:1", init: true, network_mode: none, volumes: ["data:/data"]}
  db: {image: "bed/standin:1", init: true, network_mode: none}
volumes: {data: {}}
"""


def renamed(stack: Stack, **more: object) -> Stack:
    return replace(stack, name="other", **more)  # type: ignore[arg-type]


async def test_a_person_s_containers_are_recognised_by_their_files(bench: Make, tmp_path: Path) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    b.project.person("up", "-d")
    name = b.stack.name
    web = await b.seen("web")
    b.client.commit(web.id, "snapshot", "1")
    b.client.create_container("snapshot:1", name="copy")
    left = (LeftBehind(name, (f"{name}-db-1", f"{name}-web-1"), (f"{name}_data",)),)
    assert await b.engine.left_behind(renamed(b.stack)) == left
    assert await b.engine.left_behind(b.stack) == ()
    # Other files in the same folder are another stack.
    beside = renamed(b.stack, files=(str(b.project.folder / "other.yaml"),))
    assert await b.engine.left_behind(beside) == ()
    # Through another path to the same file, and after the folder was moved.
    link = tmp_path / "link"
    link.symlink_to(b.project.folder)
    assert await b.engine.left_behind(renamed(b.stack, files=(str(link / "compose.yaml"),))) == left
    moved = b.project.folder.rename(tmp_path / "moved")
    elsewhere = renamed(b.stack, files=(str(moved / "compose.yaml"),), directory=str(moved))
    assert await b.engine.left_behind(elsewhere) == left
    moved.rename(b.project.folder)
    # Volumes have no file names as labels: they are found by the former name of the project.
    b.project.person("down")
    assert await b.engine.left_behind(renamed(b.stack)) == ()
    assert await b.engine.left_behind(renamed(b.stack), name) == (LeftBehind(name, (), (f"{name}_data",)),)
    b.project.person("down", "--volumes")
    assert await b.engine.left_behind(renamed(b.stack), name) == ()


async def test_a_daemon_s_containers_are_recognised_by_their_folder(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    frozen = Path(b.stack.model).parent / f"{'ab' * 32}.json"
    shutil.copy(b.stack.model, frozen)
    b.stack = replace(b.stack, model=str(frozen))
    await b.act(Action.CREATE, "db")
    left = (LeftBehind(b.stack.name, (f"{b.stack.name}-db-1",)),)
    assert [(one.project, one.containers) for one in await b.engine.left_behind(renamed(b.stack))] == [
        (one.project, one.containers) for one in left
    ]
    assert await b.engine.left_behind(renamed(b.stack, directory="/elsewhere")) == ()
    others = {"web": b.stack.services["web"]}
    assert await b.engine.left_behind(renamed(b.stack, services=others)) == ()
