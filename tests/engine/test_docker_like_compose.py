"""The Docker adapter acts like Docker Compose, on a real engine."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from reconciler.errors import StepFailed
from reconciler.model.observed import Action, Container, State
from tests.support.harness.adapter import PLAIN, AdapterHarness, Make
from tests.support.harness.private_engine import IMAGE, until


async def test_the_engine_has_the_version_of_its_name(bench: Make, request: pytest.FixtureRequest) -> None:
    b: AdapterHarness = await bench(PLAIN)
    name, _, store = request.node.callspec.params["clean"].partition(", ")
    info = await b.engine.info()
    assert f"docker {info.version}".startswith(name)
    assert ("containerd" in str(b.client.info()["DriverStatus"])) == bool(store)


# --- the same as Compose ---


@pytest.mark.pitfall(1)
async def test_hashes_equal_labels_and_follow_env_files(bench: Make, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "some.env").write_text("A=1\n")
    b: AdapterHarness = await bench(
        """
        services:
          web:
            image: bed/standin:1
            env_file: [some.env]
            environment: {DOLLAR: "a$$b"}
            depends_on: [db]
            configs: [{source: c, target: /c}]
          db: {image: "bed/standin:1", profiles: [extra], volumes: ["data:/data"]}
          many: {image: "bed/standin:1", deploy: {replicas: 3}}
        volumes: {data: {}}
        configs: {c: {content: "hello"}}
        """
    )
    await b.act(Action.CREATE, *b.stack.services)
    observed = await b.look()
    assert Counter(c.service for c in observed.containers) == {"web": 1, "db": 1, "many": 3}
    for container in observed.containers:
        assert container.config_hash == b.stack.services[container.service].config_hash
    before = b.stack.services["web"].config_hash
    (b.project.folder / "some.env").write_text("A=2\n")
    assert (await b.resolve()).services["web"].config_hash != before


@pytest.mark.pitfall(2)
async def test_a_person_s_compose_recreates_nothing(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          web: {image: "bed/standin:1", init: true, depends_on: [db], networks: [n]}
          db: {image: "bed/standin:1", init: true, volumes: ["data:/data"], networks: [n]}
        networks: {n: {}}
        volumes: {data: {}}
        """
    )
    await b.act(Action.CREATE, "web", "db")
    for container in (await b.look()).containers:
        await b.act(Action.START, container.service, container=container.id)
        await b.act(Action.UPDATE, container.service, container=container.id, value="no")
    before = {container.id for container in (await b.look()).containers}
    b.project.person("up", "-d")
    assert {container.id for container in (await b.look()).containers} == before
    assert "only-web-1" in b.project.person("ps")


async def test_containers_of_a_person_s_compose_are_adopted(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    b.project.person("up", "-d")
    container = await b.seen("plain")
    assert container.state is State.RUNNING
    assert container.config_hash == b.stack.services["plain"].config_hash
    await b.act(Action.CREATE, "plain")
    assert (await b.seen("plain")).id == container.id


async def test_one_off_containers_are_foreign(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    b.project.person("run", "-d", "--name", "once", "plain", "sleep", "1000")
    observed = await b.look()
    assert observed.containers == ()
    assert "once" in observed.foreign


async def test_recreating_keeps_all_volumes_and_leaves_dependents_alone(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          db: {image: "bed/standin:1", init: true, container_name: o-db, volumes: ["data:/data", /anon]}
          web:
            image: bed/standin:1
            init: true
            depends_on: {db: {condition: service_started, restart: true}}
        volumes: {data: {}}
        """
    )
    old, web = await b.running("db"), await b.running("web")

    def volumes(container: Container) -> dict[str, str]:
        mounts = b.client.inspect_container(container.id)["Mounts"]
        return {mount["Destination"]: mount["Name"] for mount in mounts}

    before = volumes(old)
    assert set(before) == {"/data", "/anon"}
    b.project.write(b.project.file.read_text().replace("o-db,", "o-db, environment: {NEW: x},"))
    await b.resolve()
    await b.act(Action.RECREATE, "db")
    new = await b.seen("db")
    assert new.id != old.id
    assert new.config_hash == b.stack.services["db"].config_hash != old.config_hash
    assert volumes(new) == before
    assert (await b.seen("web")).started_at == web.started_at


async def test_building(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          built: {image: "bed/built:1", build: context}
          broken: {image: "bed/broken:1", build: {context: context, dockerfile: Broken}}
        """
    )
    context = b.project.folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY Dockerfile /made\n")
    (context / "Broken").write_text(f"FROM {IMAGE}\nCOPY absent /made\n")
    async with aclosing(b.engine.events(b.stack)) as events:
        await anext(events)
        assert "bed/built:1" not in (await b.look()).images
        await b.act(Action.BUILD, "built")
        await until(b.look, lambda observed: "bed/built:1" in observed.images)
        with pytest.raises(StepFailed):
            await b.act(Action.BUILD, "broken")
    b.client.remove_image("bed/built:1")


async def test_a_pull_of_a_missing_image(bench: Make) -> None:
    b: AdapterHarness = await bench('services: {web: {image: "127.0.0.1:9/no/such:1"}}')
    with pytest.raises(StepFailed) as caught:
        await b.act(Action.PULL, "web")
    assert caught.value.reason == "image_unavailable"
    assert "127.0.0.1:9/no/such:1" in str(caught.value)
