"""What fails is told, tried again ever more rarely, and delays nobody; mended, it comes up at once."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise

import pytest
from docker.errors import NotFound

from reconciler.model.backoff import FIRST, JITTER
from tests.support.harness.engine_proxy import Call
from tests.support.harness.sandbox import COMPOSE, GROUP_NAMES, PROJECT, Sandbox

CRASHES = 'environment: {STANDIN_FAIL: "7"}'


def with_cache(definition: str) -> str:
    """The Compose file with more lines for the service that nothing depends on."""
    text = "    container_name: small-cache\n"
    assert COMPOSE.count(text) == 1
    return COMPOSE.replace(text, text + "".join(f"    {line}\n" for line in definition.splitlines()))


def saved(yard: Sandbox, compose: str) -> int:
    before = int(yard.daemon.get("/services/status")["generation"])
    yard.save("compose.yaml", compose)
    return yard.next_generation(before)


@pytest.mark.pitfall(18)
def test_a_crash_loop_under_the_engines_own_policy_is_never_ready(yard: Sandbox) -> None:
    generation = saved(yard, with_cache(f"restart: always\n{CRASHES}"))
    # From the second restart on it is known to go in circles; before, it may have been seen to run.
    status = yard.daemon.until(lambda s: yard.daemon.service("cache", s)["restart_count"] >= 2)
    for _ in range(10):
        assert not yard.daemon.service("cache", status)["ready"]
        status = yard.daemon.until(lambda s, old=status: s != old)  # type: ignore[misc]
    # Whether or not it was seen to run before its first end, the generation never converged.
    status = yard.daemon.until(
        lambda s: s["observed_generation"] == generation and s["progress"]["state"] == "degraded"
    )
    assert status["progress"]["reason"] == "crash_looping"
    assert status["groups"]["extra"]["phase"] == "degraded"
    # Between two restarts it is hard to stop, and yet off is off (moby#38737).
    yard.daemon.converged(yard.switch(extra=False))
    yard.is_true({"base", "app", "front"})


@pytest.mark.parametrize("policy", ["always", '"no"'])
def test_what_ends_soon_after_it_was_seen_to_run_never_converged(yard: Sandbox, policy: str) -> None:
    dies = 'environment: {STANDIN_RUN_FOR: "1", STANDIN_EXIT_CODE: "6"}'
    generation = saved(yard, with_cache(f"restart: {policy}\n{dies}"))
    # Running is ready where there is no health check, and so it converges at first.
    yard.daemon.until(lambda s: s["observed_generation"] == generation)
    status = yard.daemon.until(lambda s: s["progress"]["state"] == "degraded")
    assert (status["generation"], status["observed_generation"]) == (generation, generation)
    assert status["progress"]["reason"] == ("crash_looping" if policy == "always" else "exited")
    # Between two ends it may seem to recover.
    reason = status["progress"]["reason"]
    yard.recorder.look_until(
        lambda: yard.daemon.get(f"/services/progress/{generation}"),
        lambda told: (told["state"], told["reason"]) == ("degraded", reason),
    )
    # Mended, it has converged after all.
    yard.daemon.converged(saved(yard, COMPOSE))


def test_last_words_and_exit_code_outlive_the_container(yard: Sandbox) -> None:
    # A code of its own: the words of another test's failure are kept as well.
    saved(yard, with_cache('restart: "no"\nenvironment: {STANDIN_FAIL: "41"}'))
    yard.daemon.until(lambda s: "code 41" in (yard.daemon.service("cache", s)["last_error"] or ""))
    yard.daemon.converged(saved(yard, COMPOSE))
    kept = yard.daemon.cli("logs", "cache", "--previous")
    assert kept.returncode == 0, kept.stderr
    assert "failing, as STANDIN_FAIL says" in kept.stdout
    assert "code 41" in yard.daemon.service("cache", yard.daemon.get("/services/status"))["last_error"]


def test_what_stays_unhealthy_is_restarted(yard: Sandbox) -> None:
    yard.edit("stack.yaml", "    services: [cache]\n", "    services: [cache]\n    unhealthy: {after: 1s}\n")
    check = 'healthcheck: {test: [CMD, "false"], interval: 300ms, retries: 1}'
    mark = yard.recorder.mark()
    saved(yard, with_cache(check))
    yard.recorder.until(lambda _: yard.recorder.count(mark, "start", "cache") == 4, since=mark)
    yard.daemon.until(lambda s: "3 attempts" in yard.daemon.service("cache", s)["message"])
    assert yard.daemon.service("cache")["phase"] == "degraded"


def test_a_crash_loop_is_told_with_its_reason_and_delays_nobody(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(base=False, app=False, front=False, extra=False))
    saved(yard, with_cache(f'restart: "on-failure"\n{CRASHES}'))
    mark = yard.recorder.mark()
    generation = yard.switch()
    # All others are up as if it did not exist.
    yard.recorder.look_until(
        lambda: [c for c in yard.complaints(set(GROUP_NAMES)) if not c.startswith("cache")], lambda c: not c
    )
    status = yard.daemon.until(lambda s: s["groups"]["extra"]["phase"] == "degraded")
    service = yard.daemon.service("cache", status)
    assert service["reason"] in {"exited", "crash_looping"}
    assert "7" in service["message"]
    status = yard.daemon.until(
        lambda s: s["observed_generation"] == generation and s["progress"]["state"] == "degraded"
    )
    assert status["progress"]["message"].startswith("cache")
    assert not status["converged"]
    assert {n: g["phase"] for n, g in status["groups"].items()} == {
        "base": "converged",
        "app": "converged",
        "front": "converged",
        "extra": "degraded",
    }
    # Never in a tight loop: neither by us nor together with the engine.
    starts = [
        e.at for e in yard.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "start")
    ]
    assert len(starts) < 20

    # Mended, it comes up at once, whatever the back-off had grown to.
    mended = saved(yard, COMPOSE)
    yard.daemon.converged(mended, within=10.0)
    yard.is_true()


def test_back_off_between_starts_grows(yard: Sandbox) -> None:
    # Policy `no`: every start that is seen is the daemon's own.
    mark = yard.recorder.mark()
    saved(yard, with_cache(f'restart: "no"\n{CRASHES}'))
    yard.recorder.until(
        lambda e: (
            (e.service, e.action) == ("cache", "start") and yard.recorder.count(mark, "start", "cache") >= 4
        ),
        since=mark,
    )
    starts = [
        e.at for e in yard.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "start")
    ]
    gaps = [after - before for before, after in pairwise(starts)]
    ends = [e.at for e in yard.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "die")]
    ended = next(at for at in ends if at >= starts[0])
    # Measured to the call: what the engine takes for a start is not ours.
    ahead = time.time() - time.monotonic()
    calls = [c.at + ahead for c in yard.proxy.calls if c.path.endswith("/start") and c.at + ahead > ended]
    assert calls[0] - ended < FIRST * (1 - JITTER), "the first repair is immediate"
    assert gaps[1] > 0.7
    assert gaps[2] > 1.5
    assert yard.daemon.service("cache")["last_error"]


def test_an_image_not_to_be_had_degrades_its_service_alone(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(extra=False))
    saved(
        yard,
        COMPOSE.replace(
            "    container_name: small-cache\n",
            "    container_name: small-cache\n    image: small/nowhere:1\n",
        ).replace("COLOUR: blue", "COLOUR: red"),
    )
    generation = yard.switch()
    status = yard.daemon.until(lambda s: s["observed_generation"] == generation)
    service = yard.daemon.service("cache", status)
    assert (service["phase"], service["reason"]) == ("degraded", "image_unavailable")
    assert "small/nowhere:1" in service["message"]
    assert "COLOUR=red" in yard.one("worker")["Config"]["Env"]
    assert status["groups"]["app"]["phase"] == "converged"
    # It comes to be there: taken up by event.
    yard.docker.tag("service-manager/standin:1", "small/nowhere", "1")
    yard.daemon.converged(generation, within=10.0)
    yard.is_true()
    yard.settle()
    yard.docker.remove_image("small/nowhere:1")


def test_a_running_container_whose_next_image_is_missing_runs_on(yard: Sandbox) -> None:
    id, started = yard.one("cache")["Id"], yard.one("cache")["State"]["StartedAt"]
    saved(yard, with_cache("image: small/nowhere:1"))
    yard.daemon.until(lambda s: yard.daemon.service("cache", s)["reason"] == "image_unavailable")
    seen = yard.one("cache")
    assert (seen["Id"], seen["State"]["StartedAt"], seen["State"]["Status"]) == (id, started, "running")


def test_an_image_that_can_be_built_is_built(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(front=False))
    yard.docker.remove_container("small-web", force=True)
    yard.docker.remove_image("small/web:1", force=True)
    mark = yard.recorder.mark()
    generation = yard.switch()
    yard.daemon.converged(generation)
    yard.is_true()
    assert yard.docker.inspect_image("small/web:1")["Id"] == yard.one("web")["Image"]
    assert yard.recorder.count(mark, "start", "web") == 1
    steps = yard.daemon.get(f"/services/progress/{generation}")["steps"]
    assert ("web", "build", "done") in {(s["service"], s["action"], s["state"]) for s in steps}


def test_a_name_held_by_a_stranger_is_told_and_taken_when_it_is_free(yard: Sandbox) -> None:
    yard.daemon.converged(yard.switch(extra=False))
    yard.docker.remove_container("small-cache", force=True)
    holder = yard.stranger("small-cache")
    generation = yard.switch()
    status = yard.daemon.until(lambda s: s["observed_generation"] == generation)
    service = yard.daemon.service("cache", status)
    assert (service["phase"], service["reason"]) == ("degraded", "name_conflict")
    assert "small-cache" in service["message"]
    assert yard.docker.inspect_container(holder)["State"]["Running"], "a stranger is never touched"
    yard.docker.rename(holder, "somebody-else")
    yard.daemon.converged(generation, within=10.0)
    yard.is_true()
    assert yard.docker.inspect_container(holder)["State"]["Running"]
    yard.docker.remove_container(holder, force=True)


@pytest.mark.pitfall(9)
def test_an_answer_that_got_lost_is_followed_by_a_look_and_not_by_a_repeat(yard: Sandbox) -> None:
    """PITFALLS row 9: the engine did it, and nobody was told."""
    yard.daemon.converged(yard.switch(app=False, front=False))
    lost: list[str] = []

    def lose_each_first(call: Call) -> str | None:
        path = call.path
        if path.endswith(("/start", "/stop")) and "/exec/" not in path and path not in lost:
            lost.append(path)
            return "lose"
        return None

    mark = yard.recorder.mark()
    with yard.proxy.hooked(lose_each_first):
        yard.daemon.converged(yard.switch())
        yard.daemon.converged(yard.switch(app=False, front=False))
    assert len(lost) == 8
    events = yard.recorder.touched(mark, PROJECT)
    for service in ("api", "worker", "web", "edge"):
        done = [e.action for e in events if e.service == service]
        assert done.count("start") == 1
        assert done.count("die") == 1
    assert not any(e.action == "create" for e in events)


def test_a_container_removed_while_it_is_worked_at_is_made_again(yard: Sandbox) -> None:
    def remove_first(call: Call) -> str | None:
        path = call.path
        if path.endswith("/start") and "/exec/" not in path:
            yard.proxy.hook = None
            with suppress(NotFound):
                yard.docker.remove_container(path.split("/")[2], force=True)
        return None

    yard.daemon.converged(yard.switch(extra=False))
    with yard.proxy.hooked(remove_first):
        yard.daemon.converged(yard.switch())
    yard.is_true()
