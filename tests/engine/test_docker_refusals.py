"""Refusals of the engine, and the errors of the Docker adapter for them."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from reconciler.errors import PermanentStepFailure, StepFailed
from reconciler.model.observed import Action, State
from tests.support.harness.adapter import PLAIN, AdapterHarness, Make
from tests.support.harness.private_engine import until

from .conftest import ALL_ENGINES, PODMAN

# --- why a step failed ---


@pytest.mark.pitfall(26)
@pytest.mark.parametrize("clean", ALL_ENGINES, indirect=True)
async def test_a_port_held_by_a_program(bench: Make) -> None:
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        b: AdapterHarness = await bench(
            f'services: {{web: {{image: "bed/standin:1", ports: ["{port}:80"]}}}}'
        )
        container = await b.created("web")
        with pytest.raises(StepFailed) as caught:
            await b.act(Action.START, "web", container=container.id)
        assert caught.value.reason == "port_conflict"
        assert f"port {port} is taken by a program" in str(caught.value)
    await b.act(Action.START, "web", container=container.id)
    assert (await b.seen("web")).ports == (f"{port}:80",)


@pytest.mark.pitfall(26)
@pytest.mark.parametrize("clean", [*ALL_ENGINES, PODMAN], indirect=True)
async def test_a_port_held_by_a_container_names_it(bench: Make) -> None:
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
    b: AdapterHarness = await bench(
        f"""
        services:
          one: {{image: "bed/standin:1", init: true, container_name: o-one, ports: ["{port}:80"]}}
          two: {{image: "bed/standin:1", init: true, container_name: o-two, ports: ["{port}:80"]}}
        """
    )
    await b.running("one")
    container = await b.created("two")
    with pytest.raises(StepFailed) as caught:
        await b.act(Action.START, "two", container=container.id)
    assert caught.value.reason == "port_conflict"
    assert f"port {port} is taken by container o-one" in str(caught.value)


@pytest.mark.pitfall(25)
async def test_a_missing_network(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.created("plain")
    b.client.remove_network("only_default")
    with pytest.raises(StepFailed) as caught:
        await b.act(Action.START, "plain", container=container.id)
    assert caught.value.reason == "network_missing"


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (
            "volumes: [{type: bind, source: ./absent, target: /a, bind: {create_host_path: false}}]",
            "mount_missing",
        ),
        ("networks: [absent]", "network_missing"),
        ("runtime: absent", "definition_invalid"),
    ],
)
async def test_a_container_that_can_not_be_created(bench: Make, definition: str, reason: str) -> None:
    b: AdapterHarness = await bench(
        f"""
        services:
          web:
            image: bed/standin:1
            environment: {{THE_PASSWORD: hunter2}}
            {definition}
        networks: {{absent: {{external: true}}}}
        """
    )
    with pytest.raises(StepFailed) as caught:
        await b.act(Action.CREATE, "web")
        await b.act(Action.START, "web", container=(await b.seen("web")).id)
    assert caught.value.reason == reason, str(caught.value)
    assert isinstance(caught.value, PermanentStepFailure) == (reason == "definition_invalid")
    assert "hunter2" not in str(caught.value)


async def test_a_command_that_does_not_exist(bench: Make) -> None:
    b: AdapterHarness = await bench('services: {web: {image: "bed/standin:1", command: [/absent]}}')
    container = await b.created("web")
    with pytest.raises(StepFailed) as caught:
        await b.act(Action.START, "web", container=container.id)
    assert "/absent" in str(caught.value)
    assert "/absent" in (await b.seen("web")).error


@pytest.mark.pitfall(19)
async def test_a_running_removal_is_awaited(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    containers = [await b.created("plain")]
    for container in containers:
        orders = [b.act(Action.REMOVE, "plain", container=container.id) for _ in range(8)]
        await asyncio.gather(*orders)
    assert (await b.look()).containers == ()


@pytest.mark.pitfall(18)
async def test_a_restarting_container_is_stopped_permanently(bench: Make) -> None:
    b: AdapterHarness = await bench(
        'services: {web: {image: "bed/standin:1", command: ["false"], restart: always}}'
    )
    container = await b.running("web")
    crashing = await until(lambda: b.seen("web"), lambda found: found.restart_count > 0)
    assert crashing.exit_code == 1 or crashing.state is State.RUNNING

    async def stopped() -> bool:
        # For a stop between two runs, the engine may report success and start the container anyway.
        try:
            await b.act(Action.STOP, "web", container=container.id, grace=1.0)
        except StepFailed as error:
            assert error.reason == "still_running"
            return False
        return True

    await until(stopped, bool)
    first = await b.seen("web")
    # Longer than the engine waits between the first restarts.
    await asyncio.sleep(1.0)
    assert first.state is State.EXITED
    assert await b.seen("web") == first


@pytest.mark.pitfall(16)
async def test_a_container_that_ignores_sigterm_is_killed_after_its_grace(bench: Make) -> None:
    b: AdapterHarness = await bench('services: {web: {image: "bed/standin:1", command: [sleep, "1000"]}}')
    container = await b.running("web")
    began = time.monotonic()
    await b.act(Action.STOP, "web", container=container.id, grace=1.0)
    assert 0.9 < time.monotonic() - began < 9.5
    assert (await b.seen("web")).exit_code == 137


async def test_a_paused_container_can_be_stopped(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.running("plain")
    b.client.pause(container.id)
    await b.act(Action.STOP, "plain", container=container.id, grace=2.0)
    assert (await b.seen("plain")).state is State.EXITED
