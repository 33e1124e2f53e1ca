"""Containers that inherited a service's labels from their image belong to no service (a real engine)."""

from __future__ import annotations

from typing import Any

from reconciler.model.observed import Action
from tests.support.harness.adapter import AdapterHarness, Make

COMPOSE = """
services:
  web: {image: "copied:1", init: true}
"""
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


def tagged(b: AdapterHarness, image: str, name: str) -> None:
    repository, _, tag = name.partition(":")
    b.client.tag(image, repository, tag, force=True)


def started(b: AdapterHarness, image: str, name: str, labels: dict[str, str] | None = None) -> str:
    """Run `docker run -d --name NAME --label … IMAGE`; return the container's id."""
    made: dict[str, Any] = b.client.create_container(image, name=name, labels=labels, detach=True)
    b.client.start(made["Id"])
    return str(made["Id"])


async def test_a_copy_of_a_service_is_left_alone(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    tagged(b, "bed/standin:1", "copied:1")
    web = await b.running("web")
    b.client.commit(web.id, "snapshot", "1")
    number = "com.docker.compose.container-number"
    copies = {
        "copy": started(b, "snapshot:1", "copy"),
        "copy-2": started(b, "snapshot:1", "copy-2", {number: "2"}),
        "copy-3": started(b, "snapshot:1", "copy-3", {SERVICE: "gone"}),
    }
    b.project.engine.import_image("labelled:1", f"LABEL {PROJECT}={b.stack.name} {SERVICE}=web")
    copies["built"] = started(b, "labelled:1", "built")

    async def only_web() -> str:
        observed = await b.look(full=True)
        (container,) = observed.containers
        assert copies.items() <= observed.foreign.items()
        assert "containers built, copy, copy-2, copy-3 have" in observed.notes[0]
        return container.id

    assert await only_web() == web.id
    await b.act(Action.RECREATE, "web")
    remade = await only_web()
    assert remade != web.id
    await b.act(Action.REMOVE, "web", container=remade)
    assert (await b.look()).containers == ()
    await b.act(Action.CREATE, "web")
    assert await only_web() not in {web.id, remade}
    for id in copies.values():
        assert b.client.inspect_container(id)["State"]["Running"]


async def test_a_service_created_from_a_copy_of_itself_is_managed(bench: Make) -> None:
    b: AdapterHarness = await bench(COMPOSE)
    tagged(b, "bed/standin:1", "copied:1")
    web = await b.running("web")
    b.client.commit(web.id, "copied", "1")
    await b.act(Action.RECREATE, "web")
    (remade,) = (await b.look(full=True)).containers
    assert remade.id != web.id
    assert remade.config_hash == web.config_hash
    # Observed first by a daemon that just started, and with the image untagged.
    tagged(b, "bed/standin:1", "copied:1")
    fresh = await bench(COMPOSE)
    assert [c.id for c in (await fresh.look()).containers] == [remade.id]
