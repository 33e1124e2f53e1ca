"""Compose's work before a start, on real engines: the result equals that of Compose itself."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.engine.compose.resolve import resolve
from reconciler.errors import StepFailed
from reconciler.model.observed import Action, State
from reconciler.model.start_work import Hook, StartWork
from tests.support.harness.adapter import AdapterHarness, Make

COMPOSE = """
services:
  web:
    image: "bed/standin:1"
    init: true
    command: [sh, -c, "cat /run/secrets/pw >/at-start; exec sleep 1000"]
    configs: [{source: app, target: /etc/app, mode: 0440, uid: "7", gid: "8"}]
    secrets: [pw, {source: pw, target: sub/pw, mode: 0400}]
    post_start: [{command: [sh, -c, "echo $$WHO >>/hooks"], environment: {WHO: me}, user: "0:0"}]
  agent:
    image: "bed/standin:1"
    init: true
    use_api_socket: true
configs: {app: {content: "hello, $$HOME"}}
secrets: {pw: {environment: PASSWORD}}
"""
FILES = ("/etc/app", "/run/secrets/pw", "/run/secrets/sub/pw", "/at-start")


def inside(b: AdapterHarness, service: str, *command: str) -> str:
    (found,) = b.client.containers(filters={"label": f"com.docker.compose.service={service}"})
    run = b.client.exec_create(found["Id"], list(command), user="0:0")
    told: bytes = b.client.exec_start(run["Id"])
    return told.decode()


def state(b: AdapterHarness) -> list[str]:
    listed = [inside(b, "web", "ls", "-ln", path).split()[:4] for path in FILES]
    return [*map(str, listed), *(inside(b, "web", "cat", path) for path in FILES)]


async def test_files_and_hooks_equal_those_of_compose(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    (b.project.folder / ".env").write_text("PASSWORD='pass $$ word'\n")
    (Path(b.bed.environ["DOCKER_CONFIG"])).mkdir(exist_ok=True)
    login = {"auths": {"r.test": {"auth": base64.b64encode(b"me:pw").decode()}}}
    (Path(b.bed.environ["DOCKER_CONFIG"]) / "config.json").write_text(json.dumps(login))
    b.project.person("up", "-d")
    theirs = [*state(b), inside(b, "agent", "cat", "/run/secrets/docker/config.json")]
    assert theirs[5] == "pass $$ word"
    b.project.person("down", "-t", "0")
    await b.resolve()
    web = await b.running("web")
    await b.act(Action.POST_START, "web", container=web.id)
    await b.running("agent")
    assert [*state(b), inside(b, "agent", "cat", "/run/secrets/docker/config.json")] == theirs
    assert inside(b, "web", "cat", "/hooks").split() == ["me"]
    (Path(b.bed.environ["DOCKER_CONFIG"]) / "config.json").unlink()


async def test_a_container_gets_the_values_that_it_was_created_with(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    (b.project.folder / ".env").write_text("PASSWORD=one\n")
    await b.resolve()
    web = await b.created("web")
    (b.project.folder / ".env").write_text("PASSWORD=two\n")
    await b.resolve()
    await b.look(full=True)
    await b.act(Action.START, "web", container=web.id)
    assert inside(b, "web", "cat", "/run/secrets/pw") == "one"


async def test_a_variable_that_is_not_set_keeps_the_container_from_starting(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    web = await b.created("web")
    with pytest.raises(StepFailed, match="PASSWORD, which secret pw is taken from, is not set"):
        await b.act(Action.START, "web", container=web.id)
    assert (await b.seen("web")).state is State.CREATED


async def test_pre_start_hooks_run_in_containers_of_their_own_and_gate_the_start(bench: Make) -> None:
    b: AdapterHarness = await bench(
        'services: {web: {image: "bed/standin:1", init: true, volumes: ["data:/data"]}}\nvolumes: {data: {}}'
    )
    web = await b.created("web")
    good = Hook(command=("sh", "-c", "echo $WHO >>/data/before"), environment={"WHO": "me"})
    bad = Hook(command=("sh", "-c", "echo what is wrong >&2; exit 3"))
    for hooks in ((good, bad), (good,)):
        service = replace(b.stack.services["web"], start=StartWork(pre_start=hooks))
        # Compose 2 refuses the key, so the definition is written by hand.
        b.stack = replace(b.stack, services={"web": service}, model="")
        if bad in hooks:
            with pytest.raises(StepFailed, match="hook 2 of 2 ended with exit code 3: what is wrong"):
                await b.act(Action.START, "web", container=web.id)
            assert (await b.seen("web")).state is State.CREATED
        else:
            await b.act(Action.START, "web", container=web.id)
    assert inside(b, "web", "cat", "/data/before").split() == ["me", "me"]
    assert [found["Id"] for found in b.client.containers(all=True)] == [web.id]


def test_variables_are_looked_up_where_compose_looks(tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / ".env").write_text("TOP='t $op \"q\"'\nBOTH=outer\n")
    (tmp_path / "inc" / "own.env").write_text("INSIDE='in $side'\nBOTH=inner\n")
    file = tmp_path / "compose.yaml"
    file.write_text(
        """
        include: [{path: inc/part.yaml, env_file: inc/own.env}]
        services: {web: {image: i, secrets: [top, unset], configs: [both]}}
        secrets: {top: {environment: TOP}, unset: {environment: UNSET}}
        configs: {both: {environment: BOTH}}
        """
    )
    (tmp_path / "inc" / "part.yaml").write_text(
        "services: {side: {image: i, secrets: [in]}}\nsecrets: {in: {environment: INSIDE}}\n"
    )
    environ = {"PATH": os.defpath, "HOME": str(tmp_path)}
    resolved = asyncio.run(resolve([file], tmp_path, "only", environ=environ))
    assert resolved.values == {
        "secret top": 't $op "q"',
        "secret unset": None,
        "config both": "outer",
        "secret in": "in $side",
    }
    assert b"side" not in resolved.text.replace(b'"side"', b"").replace(b"INSIDE", b"")
