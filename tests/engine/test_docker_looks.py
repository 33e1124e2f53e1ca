"""Observation, events, measurements and logs of the Docker adapter, on a real engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from reconciler.engine.docker import logs, usage
from reconciler.model.observed import Health, State
from tests.support.harness.adapter import PLAIN, AdapterHarness, Make
from tests.support.harness.private_engine import IMAGE, until

# --- observing ---


async def test_an_unchanged_observation_is_one_request(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    b: AdapterHarness = await bench(PLAIN)
    await b.running("plain")
    async with aclosing(b.engine.events(b.stack)) as events:
        await anext(events)
        await b.look()
        asked = b.count_requests(monkeypatch)
        first = await b.look()
        assert len(asked) == 1
        asked.clear()
        full = await b.engine.observe(b.stack, full=True)
        assert len(asked) == 3
        assert full.containers == first.containers


async def test_a_restart_without_an_event_is_observed(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    before = await b.running("plain")
    b.client.restart(before.id, timeout=1)
    after = await b.seen("plain")
    assert after.started_at > before.started_at
    assert after.pid != before.pid


async def test_the_engine_s_own_verdict(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          well:
            image: bed/standin:1
            init: true
            healthcheck: {test: ["CMD", test, -e, /tmp/well], interval: 100ms, retries: 1000}
          ill:
            image: bed/standin:1
            init: true
            healthcheck: {test: "exit 3", interval: 1s, retries: 1}
        """
    )
    async with aclosing(b.engine.events(b.stack)) as events:
        await anext(events)
        well = await b.running("well")
        assert well.health is Health.STARTING
        made = b.client.exec_create(well.id, ["touch", "/tmp/well"])
        b.client.exec_start(made["Id"])
        assert (await b.running("ill")).check == ("/bin/sh", "-c", "exit 3")
        texts: list[str] = []
        while not {"healthy", "unhealthy"} <= {text.split()[-2] for text in texts if "health_status" in text}:
            texts.append(await asyncio.wait_for(anext(events), 30))
        assert (await b.seen("well")).health is Health.HEALTHY
        assert (await b.seen("ill")).health is Health.UNHEALTHY
        assert not any("exec" in text for text in texts)


async def test_image_names_of_every_form(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          short: {image: "bed/standin:1"}
          full: {image: "docker.io/bed/standin:1"}
        """
    )
    assert len(set((await b.look()).images.values())) == 1
    assert set((await b.look()).images) == {"bed/standin:1", "docker.io/bed/standin:1"}


async def test_foreign_networks_and_containers_make_no_event(bench: Make) -> None:
    b: AdapterHarness = await bench(PLAIN)
    async with aclosing(b.engine.events(b.stack)) as events:
        await anext(events)
        other = b.client.create_container(IMAGE, name="stranger")
        b.client.start(other)
        b.client.create_container(IMAGE, name="o-plain")
        assert await asyncio.wait_for(anext(events), 20) == "container create o-plain"


# --- measuring ---


async def test_api_and_files_give_the_same_measurement(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    b: AdapterHarness = await bench(PLAIN)
    container = await b.running("plain")
    assert set(usage.read_all((container,))) == {container}
    files = await b.engine.stats((container,))
    monkeypatch.setattr(usage, "read_all", lambda _: {})
    asked = await b.engine.stats((container,))
    assert abs(files[container.id].memory - asked[container.id].memory) < 2_000_000


async def test_logs_follow_until_closed(bench: Make) -> None:
    b: AdapterHarness = await bench(
        """
        services:
          talk:
            image: bed/standin:1
            init: true
            command: [sh, -c, "echo one; echo two >&2; printf 'half '; sleep 2; echo whole; sleep 1000"]
        """
    )
    container = await b.running("talk")
    async with aclosing(b.engine.logs(container.id, follow=True)) as lines:
        found = [await asyncio.wait_for(anext(lines), 20) for _ in range(3)]
        assert sorted(found[:2]) == ["one", "two"]
        assert found[2] == "half whole"
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        b.client.kill(container.id)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, 20)
    assert [line async for line in b.engine.logs(container.id, tail=1)] == ["half whole"]


async def test_a_terminal_s_log_has_no_frames(bench: Make) -> None:
    b: AdapterHarness = await bench(
        'services: {tty: {image: "bed/standin:1", tty: true, command: [echo, hello]}}'
    )
    container = await b.running("tty")
    await until(lambda: b.seen("tty"), lambda found: found.state is State.EXITED)
    assert [line async for line in b.engine.logs(container.id)] == ["hello"]


@pytest.mark.pitfall(43)
async def test_a_follower_continues_when_the_engine_rotates_the_log(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SILENT", 0.5)
    b: AdapterHarness = await bench(
        """
        services:
          talk:
            image: bed/standin:1
            init: true
            command:
            - sh
            - -c
            - |
              for b in $$(seq 30); do
                for i in $$(seq 8); do echo batch $$b line $$i; done
                until test -e /tmp/go-$$b; do sleep 0.05; done
              done
              echo last; cat
            stdin_open: true
            logging: {driver: json-file, options: {max-size: 1k, max-file: "100"}}
        """
    )
    container = await b.running("talk")
    found: list[str] = []
    async with aclosing(b.engine.logs(container.id, tail=1000, follow=True)) as lines:
        while not found or found[-1] != "last":
            found.append(await asyncio.wait_for(anext(lines), 20))
            if found[-1].endswith(" line 8"):
                # In step with the reader, less than a file at a time: the engine itself skips what is rotated
                # away twice in between.
                made = b.client.exec_create(container.id, ["touch", f"/tmp/go-{found[-1].split()[1]}"])
                await asyncio.to_thread(b.client.exec_start, made["Id"])
    # Each line once, in order, over all the files.
    assert found == [*(f"batch {b} line {n}" for b in range(1, 31) for n in range(1, 9)), "last"]
