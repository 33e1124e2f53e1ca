"""The promises of every engine adapter. The same tests run for all, so that the simulation stays true."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from reconciler.errors import BatchFailed, ContainerGone, EngineError, EngineUnavailable, StepFailed
from reconciler.model.observed import ALIVE, Action, Command, Container, Health, ObservedState, State
from tests.support.harness.private_engine import IMAGE, by_service, until

from .conftest import PATIENCE, World

UNKNOWN = "f" * 64


async def look(world: World, *, full: bool = False) -> ObservedState:
    return await world.engine.observe(world.stack, full=full)


async def seen(world: World, service: str) -> Container:
    return by_service(await look(world))[service]


async def act(world: World, action: Action, *services: str, container: str = "", **more: object) -> None:
    command = Command(action, services, container=container, **more)  # type: ignore[arg-type]
    await world.engine.act(command, world.stack)


async def created(world: World, service: str) -> Container:
    await act(world, Action.CREATE, service)
    return await seen(world, service)


async def running(world: World, service: str) -> Container:
    container = await created(world, service)
    await act(world, Action.START, service, container=container.id)
    return await seen(world, service)


# --- observing ---


async def test_an_empty_engine_gives_a_complete_observation(world: World) -> None:
    observed = await look(world)
    assert observed.complete
    assert observed.containers == ()
    assert 0 < observed.began <= observed.at
    assert observed.capabilities == world.engine.capabilities


async def test_existing_images_are_observed(world: World) -> None:
    observed = await look(world)
    assert set(observed.images) == {IMAGE}


async def test_a_moved_tag_is_observed(world: World) -> None:
    before = (await look(world)).images[IMAGE]
    world.retag(IMAGE)
    await until(lambda: look(world), lambda observed: observed.images[IMAGE] != before)


async def test_containers_are_sorted_by_id(world: World) -> None:
    await act(world, Action.CREATE, "web", "plain", "sick", "job")
    ids = [container.id for container in (await look(world)).containers]
    assert ids == sorted(ids)
    assert len(ids) == 4


async def test_containers_of_others_are_foreign(world: World) -> None:
    world.hold_name("elsewhere")
    observed = await look(world)
    assert observed.containers == ()
    assert "elsewhere" in observed.foreign


async def test_a_full_observation_is_equal(world: World) -> None:
    await running(world, "web")
    usual, full = await look(world), await look(world, full=True)
    assert usual.containers == full.containers
    assert usual.images == full.images


async def test_a_container_removed_by_another_client_is_absent(world: World) -> None:
    world.remove(await running(world, "plain"))
    observed = await look(world)
    assert observed.complete
    assert observed.containers == ()


# --- creating ---


async def test_created_containers_have_hash_and_image(world: World) -> None:
    await act(world, Action.CREATE, "web", "plain")
    observed = await look(world)
    found = by_service(observed)
    assert set(found) == {"web", "plain"}
    for service, container in found.items():
        assert container.state is State.CREATED
        assert container.name == f"c-{service}"
        assert container.config_hash == world.stack.services[service].config_hash
        assert container.image == observed.images[IMAGE]
        assert container.created_at > 0
        assert container.started_at == 0
    assert found["web"].check == ("true",)
    assert found["plain"].check == ()
    assert found["plain"].restart == "unless-stopped"
    assert found["plain"].networks == world.stack.services["plain"].networks


async def test_creating_what_exists_changes_nothing(world: World) -> None:
    before = await created(world, "web")
    await act(world, Action.CREATE, "web")
    assert (await seen(world, "web")).id == before.id


async def test_a_missing_image_is_the_reason(world: World) -> None:
    with pytest.raises(StepFailed) as caught:
        await act(world, Action.CREATE, "unfetched")
    assert caught.value.reason == "image_unavailable"


async def test_a_name_conflict_is_the_reason(world: World) -> None:
    world.hold_name("c-web")
    with pytest.raises(StepFailed) as caught:
        await act(world, Action.CREATE, "web")
    assert caught.value.reason == "name_conflict"
    assert "c-web" in (await look(world)).foreign


async def test_one_bad_service_delays_no_other(world: World) -> None:
    with pytest.raises(BatchFailed) as caught:
        await act(world, Action.CREATE, "unfetched", "web", "plain")
    assert {service: error.reason for service, error in caught.value.failed.items()} == {
        "unfetched": "image_unavailable"
    }
    assert set(by_service(await look(world))) == {"web", "plain"}


async def test_recreating_replaces_the_container(world: World) -> None:
    before = await running(world, "web")
    await act(world, Action.RECREATE, "web")
    observed = await look(world)
    (after,) = observed.containers
    assert after.id != before.id
    assert after.name == before.name
    assert after.state is State.CREATED
    assert after.config_hash == world.stack.services["web"].config_hash


# --- several containers of one service ---


async def replicas(world: World) -> dict[int, Container]:
    return {c.number: c for c in (await look(world)).containers if c.service == "many"}


async def test_all_replicas_of_the_file_are_created(world: World) -> None:
    await act(world, Action.CREATE, "many", "plain")
    found = await replicas(world)
    assert {n: c.name for n, c in found.items()} == {n: f"contract-many-{n}" for n in (1, 2, 3)}
    assert {c.config_hash for c in found.values()} == {world.stack.services["many"].config_hash}
    assert (await seen(world, "plain")).number == 1


async def test_missing_replicas_are_created_with_the_next_numbers(world: World) -> None:
    await act(world, Action.CREATE, "many")
    before = await replicas(world)
    world.remove(before[2])
    await act(world, Action.CREATE, "many")
    after = await replicas(world)
    assert after.keys() == {1, 3, 4}
    assert (after[1].id, after[3].id) == (before[1].id, before[3].id)
    await act(world, Action.CREATE, "many")
    assert await replicas(world) == after


async def test_recreating_replaces_each_under_its_number_and_name(world: World) -> None:
    await act(world, Action.CREATE, "many")
    before = await replicas(world)
    world.remove(before[2])
    await act(world, Action.RECREATE, "many")
    after = await replicas(world)
    assert {n: c.name for n, c in after.items()} == {n: f"contract-many-{n}" for n in (1, 3)}
    assert not {c.id for c in after.values()} & {c.id for c in before.values()}


async def test_recreating_one_leaves_the_others_alone(world: World) -> None:
    await act(world, Action.CREATE, "many")
    before = await replicas(world)
    for number in (1, 2, 3):
        await act(world, Action.START, "many", container=before[number].id)
    await act(world, Action.STOP, "many", container=before[2].id, grace=5.0)
    running = await replicas(world)
    await act(world, Action.RECREATE, "many", container=before[2].id, replaces=(before[2].id,))
    after = await replicas(world)
    assert (after[2].name, after[2].state) == (before[2].name, State.CREATED)
    assert after[2].id != before[2].id
    assert (after[1], after[3]) == (running[1], running[3])
    with pytest.raises(ContainerGone):
        await act(world, Action.RECREATE, "many", container=before[2].id, replaces=(before[2].id,))
    assert await replicas(world) == after


async def test_no_command_removes_surplus_replicas(world: World) -> None:
    await act(world, Action.CREATE, "many")
    service = world.stack.services["many"]
    fewer = replace(world.stack, services={**world.stack.services, "many": replace(service, replicas=1)})
    for action in (Action.CREATE, Action.RECREATE):
        await world.engine.act(Command(action, ("many",)), fewer)
        assert (await replicas(world)).keys() == {1, 2, 3}


# --- commands for one container ---


async def test_starting(world: World) -> None:
    container = await running(world, "web")
    assert container.state is State.RUNNING
    assert container.health is Health.STARTING
    assert container.started_at >= container.created_at > 0


async def test_a_container_without_a_check_has_no_health(world: World) -> None:
    assert (await running(world, "plain")).health is Health.NONE


async def test_stopping(world: World) -> None:
    container = await running(world, "plain")
    await act(world, Action.STOP, "plain", container=container.id, grace=5.0)
    stopped = await seen(world, "plain")
    assert stopped.state is State.EXITED
    assert stopped.finished_at >= container.started_at


async def test_killing(world: World) -> None:
    container = await running(world, "plain")
    await act(world, Action.KILL, "plain", container=container.id)
    killed = await until(lambda: seen(world, "plain"), lambda found: found.state not in ALIVE)
    assert killed.exit_code == 137


async def test_removing(world: World) -> None:
    container = await created(world, "web")
    await act(world, Action.REMOVE, "web", container=container.id)
    assert (await look(world)).containers == ()


async def test_a_running_container_is_not_removed(world: World) -> None:
    container = await running(world, "plain")
    with pytest.raises(StepFailed):
        await act(world, Action.REMOVE, "plain", container=container.id)
    assert (await seen(world, "plain")).state is State.RUNNING


async def test_unpausing(world: World) -> None:
    container = await running(world, "plain")
    world.pause(container)
    assert (await seen(world, "plain")).state is State.PAUSED
    await act(world, Action.UNPAUSE, "plain", container=container.id)
    assert (await seen(world, "plain")).state is State.RUNNING


async def test_renaming(world: World) -> None:
    container = await created(world, "web")
    world.rename(container, "odd")
    assert (await seen(world, "web")).name == "odd"
    await act(world, Action.RENAME, "web", container=container.id, value="c-web")
    assert (await seen(world, "web")).name == "c-web"


async def test_updating_the_restart_policy(world: World) -> None:
    container = await created(world, "plain")
    await act(world, Action.UPDATE, "plain", container=container.id, value="no")
    assert (await seen(world, "plain")).restart == "no"
    await act(world, Action.UPDATE, "plain", container=container.id, value="on-failure:3")
    after = await seen(world, "plain")
    assert after.restart == "on-failure:3"
    assert after.config_hash == container.config_hash


@pytest.mark.pitfall(19)
async def test_a_repeated_command_succeeds(world: World) -> None:
    container = await running(world, "plain")
    await act(world, Action.START, "plain", container=container.id)
    await act(world, Action.UNPAUSE, "plain", container=container.id)
    await act(world, Action.RENAME, "plain", container=container.id, value=container.name)
    assert (await seen(world, "plain")).started_at == container.started_at
    await act(world, Action.STOP, "plain", container=container.id, grace=5.0)
    await act(world, Action.STOP, "plain", container=container.id, grace=5.0)
    await act(world, Action.KILL, "plain", container=container.id)
    await act(world, Action.REMOVE, "plain", container=container.id)
    await act(world, Action.REMOVE, "plain", container=container.id)


@pytest.mark.parametrize("action", [Action.STOP, Action.KILL, Action.REMOVE])
async def test_ending_a_missing_container_succeeds(world: World, action: Action) -> None:
    await act(world, action, "web", container=UNKNOWN)


@pytest.mark.parametrize("action", [Action.START, Action.UNPAUSE, Action.RENAME, Action.UPDATE])
async def test_other_commands_for_a_missing_container_report_that_it_is_gone(
    world: World, action: Action
) -> None:
    with pytest.raises(ContainerGone):
        await act(world, action, "web", container=UNKNOWN, value="no")


async def test_a_one_shot_ends(world: World) -> None:
    await running(world, "job")
    ended = await until(lambda: seen(world, "job"), lambda found: found.state is State.EXITED)
    assert ended.exit_code == 0
    # Docker records an end from its runtime's event and a start when its own call returns, so a process that
    # ends at once may have ended some milliseconds before it "started".
    assert ended.started_at > 0
    assert ended.finished_at == pytest.approx(ended.started_at, abs=5.0)


# --- Compose's work before a start and a stop ---


async def test_files_are_copied_before_each_start(world: World) -> None:
    container = await running(world, "hooked")
    assert world.file(container, "/etc/greeting") == "hello, $HOME"
    await act(world, Action.STOP, "hooked", container=container.id, grace=5.0)
    await act(world, Action.START, "hooked", container=container.id)
    assert world.file(container, "/etc/greeting") == "hello, $HOME"


async def test_hooks_run_on_command_and_before_a_stop(world: World) -> None:
    container = await running(world, "hooked")
    assert world.hooks(container) == []
    await act(world, Action.POST_START, "hooked", container=container.id)
    assert world.hooks(container) == ["post_start"]
    await act(world, Action.STOP, "hooked", container=container.id, grace=5.0)
    await act(world, Action.STOP, "hooked", container=container.id, grace=5.0)
    assert world.hooks(container) == ["post_start", "pre_stop"]
    with pytest.raises(ContainerGone):
        await act(world, Action.POST_START, "hooked", container=container.id)


async def test_a_failed_hook_is_the_reason(world: World) -> None:
    container = await running(world, "failing")
    with pytest.raises(StepFailed, match="exit code 3") as caught:
        await act(world, Action.POST_START, "failing", container=container.id)
    assert caught.value.reason == "hook_failed"
    assert (await seen(world, "failing")).state is State.RUNNING


async def test_a_failed_hook_before_a_stop_is_a_warning(world: World) -> None:
    container = await running(world, "failing")
    command = Command(Action.STOP, ("failing",), container.id, 5.0)
    assert "exit code 4" in await world.engine.act(command, world.stack)
    assert (await seen(world, "failing")).state is State.EXITED


async def test_nothing_is_copied_into_a_read_only_container(world: World) -> None:
    container = await created(world, "closed")
    with pytest.raises(StepFailed) as caught:
        await act(world, Action.START, "closed", container=container.id)
    assert caught.value.reason == "files_not_copied"
    assert (await seen(world, "closed")).state is State.CREATED


# --- stops by other clients ---


async def test_a_stop_by_another_client_is_reported_with_the_run_that_it_ended(world: World) -> None:
    container = await running(world, "plain")
    job = await running(world, "job")
    over = await until(lambda: seen(world, "job"), lambda found: found.state is State.EXITED)
    assert over.stop_requested_at == 0.0 or over.id != job.id
    async with aclosing(world.engine.events(world.stack)) as events:  # type: ignore[type-var]
        await anext(events)
        world.stop(container)
        stopped = await until(lambda: seen(world, "plain"), lambda found: found.stop_requested_at > 0)
        assert stopped.state is State.EXITED
        assert stopped.stop_requested_at >= stopped.started_at > 0


async def test_a_stop_before_the_subscription_is_reported_too(world: World) -> None:
    container = await running(world, "plain")
    world.stop(container)
    async with aclosing(world.engine.events(world.stack)) as events:  # type: ignore[type-var]
        await anext(events)
        assert (await seen(world, "plain")).stop_requested_at >= container.started_at


# --- events ---


@pytest.mark.pitfall(12)
async def test_nothing_is_missed_after_the_subscription(world: World) -> None:
    container = await running(world, "plain")
    async with aclosing(world.engine.events(world.stack)) as events:  # type: ignore[type-var]
        assert await asyncio.wait_for(anext(events), 20) == "subscribed"
        assert (await seen(world, "plain")).state is State.RUNNING
        world.kill(container)
        assert await asyncio.wait_for(anext(events), 20)
        await until(lambda: seen(world, "plain"), lambda found: found.state is State.EXITED)


async def test_changes_by_other_clients_cause_an_event(world: World) -> None:
    container = await running(world, "plain")
    async with aclosing(world.engine.events(world.stack)) as events:  # type: ignore[type-var]
        await anext(events)
        await look(world)
        world.rename(container, "odd")
        assert await asyncio.wait_for(anext(events), 20)
        assert (await seen(world, "plain")).name == "odd"


@pytest.mark.pitfall(11)
async def test_a_busy_consumer_still_sees_the_last_change(world: World) -> None:
    container = await running(world, "plain")
    async with aclosing(world.engine.events(world.stack)) as events:  # type: ignore[type-var]
        await anext(events)
        for number in range(20):
            world.rename(container, f"odd-{number}")
        await asyncio.wait_for(anext(events), 20)
        await until(lambda: seen(world, "plain"), lambda found: found.name == "odd-19")


@pytest.mark.pitfall(14)
async def test_closing_ends_an_active_stream(world: World) -> None:
    events = world.engine.events(world.stack)
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await world.engine.close()
    with pytest.raises((StopAsyncIteration, EngineUnavailable)):
        await asyncio.wait_for(waiting, 20)


# --- probes, measurements, logs ---


async def test_a_probe_distinguishes_healthy_from_unhealthy(world: World) -> None:
    assert await world.engine.probe(await running(world, "web"), 5.0)
    assert not await world.engine.probe(await running(world, "sick"), 5.0)


@pytest.mark.pitfall(24)
async def test_a_hanging_check_is_abandoned_in_time(world: World) -> None:
    container = await running(world, "hang")
    began = time.monotonic()
    assert not await world.engine.probe(container, 0.5)
    assert time.monotonic() - began < 20.0


async def test_a_failed_probe_means_not_ready(world: World) -> None:
    assert not await world.engine.probe(await running(world, "plain"), 5.0)
    assert not await world.engine.probe(await created(world, "web"), 5.0)
    web = await seen(world, "web")
    world.remove(web)
    assert not await world.engine.probe(web, 5.0)


async def test_running_containers_are_measured(world: World) -> None:
    up, down = await running(world, "plain"), await created(world, "web")
    usage = await world.engine.stats((up, down))
    # Podman counts with cgroups of version 2 alone, whose memory controller this machine may lack.
    assert set(usage) == ({up.id} if world.measures else set())
    assert all(used.memory > 0 and used.cpu >= 0 for used in usage.values())


async def test_log_lines(world: World) -> None:
    container = await running(world, "web")

    async def lines() -> list[str]:
        return [line async for line in world.engine.logs(container.id, tail=100)]

    found = await until(lines, bool)
    assert all("\n" not in line for line in found)
    assert [line async for line in world.engine.logs(container.id, tail=0)] == []


async def test_logs_of_a_missing_container(world: World) -> None:
    with pytest.raises(ContainerGone):
        await anext(world.engine.logs(UNKNOWN))


# --- without an engine ---


async def test_a_silent_engine_is_an_error_within_the_deadline_until_it_responds(world: World) -> None:
    container = await created(world, "web")
    with world.silent():
        began = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await look(world)
        with pytest.raises(EngineUnavailable):
            await world.engine.info()
        with pytest.raises(EngineError):
            await anext(world.engine.events(world.stack))
        assert time.monotonic() - began < 10 * PATIENCE
    observed = await look(world)
    assert observed.complete
    assert [found.id for found in observed.containers] == [container.id]


async def test_info_identifies_the_engine(world: World) -> None:
    info = await world.engine.info()
    assert info.kind in {"docker", "podman", "simulated"}
    assert info.version
    assert info.memory > 0
    assert info.cpus > 0
