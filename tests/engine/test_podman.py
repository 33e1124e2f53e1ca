"""What Podman does in another way than Docker, and how its adapter makes up for it."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.engine.podman.health_checks import engine_has_timers
from reconciler.model.observed import Container, Health, State
from tests.support.harness.adapter import AdapterHarness, Make
from tests.support.harness.private_engine import until

from .conftest import PODMAN

pytestmark = pytest.mark.parametrize("clean", [PODMAN], indirect=True)

CHECKED = """
services:
  good:
    image: bed/standin:1
    init: true
    healthcheck: {test: [CMD, test, "!", "-e", /tmp/broken], interval: 1s, retries: 2}
  bad:
    image: bed/standin:1
    init: true
    healthcheck: {test: [CMD, "false"], interval: 1s, retries: 2}
"""


async def until_health(b: AdapterHarness, service: str, health: Health) -> Container:
    return await until(lambda: b.seen(service), lambda found: found.health is health)


async def test_info_names_podman_and_its_own_version(bench: Make) -> None:
    b: AdapterHarness = await bench(CHECKED)
    info = await b.engine.info()
    assert (info.kind, info.version.split(".")[0]) == ("podman", "5")


async def test_without_systemd_the_daemon_runs_health_checks_at_their_interval(bench: Make) -> None:
    b: AdapterHarness = await bench(CHECKED)
    # As on a machine without systemd, wherever the tests run.
    b.engine._health_checks._timers = engine_has_timers("/s", systemd=b.state / "absent")
    assert (await b.running("good")).health is Health.STARTING
    await b.running("bad")
    good = await until_health(b, "good", Health.HEALTHY)
    await until_health(b, "bad", Health.UNHEALTHY)
    created = b.client.exec_create(good.id, ["touch", "/tmp/broken"])
    b.client.exec_start(created["Id"])
    await until_health(b, "good", Health.UNHEALTHY)


async def test_a_crash_loop_hides_no_other_container(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          web: {image: "bed/standin:1", init: true}
          crash: {image: "bed/standin:1", command: ["false"], restart: always}
        """
    )
    await b.running("web")
    await b.running("crash")
    for _ in range(50):
        observed = await b.look(full=True)
        assert observed.complete
        assert {c.service for c in observed.containers if c.state is not State.UNKNOWN} == {"web", "crash"}


async def test_changes_that_docker_words_differently_are_events(bench: Make) -> None:
    b: AdapterHarness = await bench(CHECKED)
    stopped, cut = await b.created("good"), await b.running("bad")
    events = b.engine.events(b.stack)
    assert await anext(events) == "subscribed"
    await b.look(full=True)
    b.client.disconnect_container_from_network(cut.id, "only_default")
    assert await asyncio.wait_for(anext(events), 10) == f"network disconnect {cut.name}"
    assert (await b.seen("bad")).networks == ()
    b.client.remove_container(stopped.id)
    assert await asyncio.wait_for(anext(events), 10) == f"container remove {stopped.name}"
    await events.aclose()


async def test_a_restart_between_two_observations_shows_without_events(bench: Make) -> None:
    b: AdapterHarness = await bench(CHECKED)
    before = await b.running("bad")
    b.client.restart(before.id, timeout=1)
    assert (await b.seen("bad")).started_at > before.started_at
