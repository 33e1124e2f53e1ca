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


def saved(sandbox: Sandbox, compose: str) -> int:
    before = int(sandbox.daemon.get("/services/status")["generation"])
    sandbox.save("compose.yaml", compose)
    return sandbox.next_generation(before)


@pytest.mark.pitfall(18)
def test_a_crash_loop_under_the_engines_own_policy_is_never_ready(sandbox: Sandbox) -> None:
    generation = saved(sandbox, with_cache(f"restart: always\n{CRASHES}"))
    # From the second restart on it is known to go in circles; before, it may have been seen to run.
    status = sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["restart_count"] >= 2)
    for _ in range(10):
        assert not sandbox.daemon.service("cache", status)["ready"]
        status = sandbox.daemon.until(lambda s, old=status: s != old)  # type: ignore[misc]
    # Whether or not it was seen to run before its first end, the generation never converged.
    status = sandbox.daemon.until(
        lambda s: s["observed_generation"] == generation and s["progress"]["state"] == "degraded"
    )
    assert status["progress"]["reason"] == "crash_looping"
    assert status["groups"]["extra"]["phase"] == "degraded"
    # Between two restarts it is hard to stop, and yet off is off (moby#38737).
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.parametrize("policy", ["always", '"no"'])
def test_what_ends_soon_after_it_was_seen_to_run_never_converged(sandbox: Sandbox, policy: str) -> None:
    dies = 'environment: {STANDIN_RUN_FOR: "1", STANDIN_EXIT_CODE: "6"}'
    generation = saved(sandbox, with_cache(f"restart: {policy}\n{dies}"))
    # Running is ready where there is no health check, and so it converges at first.
    sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    status = sandbox.daemon.until(lambda s: s["progress"]["state"] == "degraded")
    assert (status["generation"], status["observed_generation"]) == (generation, generation)
    assert status["progress"]["reason"] == ("crash_looping" if policy == "always" else "exited")
    # Between two ends it may seem to recover.
    reason = status["progress"]["reason"]
    sandbox.recorder.look_until(
        lambda: sandbox.daemon.get(f"/services/progress/{generation}"),
        lambda told: (told["state"], told["reason"]) == ("degraded", reason),
    )
    # Mended, it has converged after all.
    sandbox.daemon.converged(saved(sandbox, COMPOSE))


def test_last_words_and_exit_code_outlive_the_container(sandbox: Sandbox) -> None:
    # A code of its own: the words of another test's failure are kept as well.
    saved(sandbox, with_cache('restart: "no"\nenvironment: {STANDIN_FAIL: "41"}'))
    sandbox.daemon.until(lambda s: "code 41" in (sandbox.daemon.service("cache", s)["last_error"] or ""))
    sandbox.daemon.converged(saved(sandbox, COMPOSE))
    kept = sandbox.daemon.cli("logs", "cache", "--previous")
    assert kept.returncode == 0, kept.stderr
    assert "failing, as STANDIN_FAIL says" in kept.stdout
    assert "code 41" in sandbox.daemon.service("cache", sandbox.daemon.get("/services/status"))["last_error"]


def test_what_stays_unhealthy_is_restarted(sandbox: Sandbox) -> None:
    sandbox.edit(
        "stack.yaml", "    services: [cache]\n", "    services: [cache]\n    unhealthy: {after: 1s}\n"
    )
    check = 'healthcheck: {test: [CMD, "false"], interval: 300ms, retries: 1}'
    mark = sandbox.recorder.mark()
    saved(sandbox, with_cache(check))
    sandbox.recorder.until(lambda _: sandbox.recorder.count(mark, "start", "cache") == 4, since=mark)
    sandbox.daemon.until(lambda s: "3 attempts" in sandbox.daemon.service("cache", s)["message"])
    assert sandbox.daemon.service("cache")["phase"] == "degraded"


def test_a_crash_loop_is_told_with_its_reason_and_delays_nobody(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    saved(sandbox, with_cache(f'restart: "on-failure"\n{CRASHES}'))
    mark = sandbox.recorder.mark()
    generation = sandbox.switch()
    # All others are up as if it did not exist.
    sandbox.recorder.look_until(
        lambda: [c for c in sandbox.complaints(set(GROUP_NAMES)) if not c.startswith("cache")],
        lambda c: not c,
    )
    status = sandbox.daemon.until(lambda s: s["groups"]["extra"]["phase"] == "degraded")
    service = sandbox.daemon.service("cache", status)
    assert service["reason"] in {"exited", "crash_looping"}
    assert "7" in service["message"]
    status = sandbox.daemon.until(
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
        e.at for e in sandbox.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "start")
    ]
    assert len(starts) < 20

    # Mended, it comes up at once, whatever the back-off had grown to.
    mended = saved(sandbox, COMPOSE)
    sandbox.daemon.converged(mended, within=10.0)
    sandbox.is_true()


def test_back_off_between_starts_grows(sandbox: Sandbox) -> None:
    # Policy `no`: every start that is seen is the daemon's own.
    mark = sandbox.recorder.mark()
    saved(sandbox, with_cache(f'restart: "no"\n{CRASHES}'))
    sandbox.recorder.until(
        lambda e: (
            (e.service, e.action) == ("cache", "start")
            and sandbox.recorder.count(mark, "start", "cache") >= 4
        ),
        since=mark,
    )
    starts = [
        e.at for e in sandbox.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "start")
    ]
    gaps = [after - before for before, after in pairwise(starts)]
    ends = [
        e.at for e in sandbox.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "die")
    ]
    ended = next(at for at in ends if at >= starts[0])
    # Measured to the call: what the engine takes for a start is not ours.
    ahead = time.time() - time.monotonic()
    calls = [c.at + ahead for c in sandbox.proxy.calls if c.path.endswith("/start") and c.at + ahead > ended]
    assert calls[0] - ended < FIRST * (1 - JITTER), "the first repair is immediate"
    assert gaps[1] > 0.7
    assert gaps[2] > 1.5
    assert sandbox.daemon.service("cache")["last_error"]


def test_an_image_not_to_be_had_degrades_its_service_alone(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(extra=False))
    saved(
        sandbox,
        COMPOSE.replace(
            "    container_name: small-cache\n",
            "    container_name: small-cache\n    image: small/nowhere:1\n",
        ).replace("COLOUR: blue", "COLOUR: red"),
    )
    generation = sandbox.switch()
    status = sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    service = sandbox.daemon.service("cache", status)
    assert (service["phase"], service["reason"]) == ("degraded", "image_unavailable")
    assert "small/nowhere:1" in service["message"]
    assert "COLOUR=red" in sandbox.one("worker")["Config"]["Env"]
    assert status["groups"]["app"]["phase"] == "converged"
    # It comes to be there: taken up by event.
    sandbox.docker.tag("service-manager/standin:1", "small/nowhere", "1")
    sandbox.daemon.converged(generation, within=10.0)
    sandbox.is_true()
    sandbox.settle()
    sandbox.docker.remove_image("small/nowhere:1")


def test_a_running_container_whose_next_image_is_missing_runs_on(sandbox: Sandbox) -> None:
    id, started = sandbox.one("cache")["Id"], sandbox.one("cache")["State"]["StartedAt"]
    saved(sandbox, with_cache("image: small/nowhere:1"))
    sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["reason"] == "image_unavailable")
    seen = sandbox.one("cache")
    assert (seen["Id"], seen["State"]["StartedAt"], seen["State"]["Status"]) == (id, started, "running")


def test_an_image_that_can_be_built_is_built(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(front=False))
    sandbox.docker.remove_container("small-web", force=True)
    sandbox.docker.remove_image("small/web:1", force=True)
    mark = sandbox.recorder.mark()
    generation = sandbox.switch()
    sandbox.daemon.converged(generation)
    sandbox.is_true()
    assert sandbox.docker.inspect_image("small/web:1")["Id"] == sandbox.one("web")["Image"]
    assert sandbox.recorder.count(mark, "start", "web") == 1
    steps = sandbox.daemon.get(f"/services/progress/{generation}")["steps"]
    assert ("web", "build", "done") in {(s["service"], s["action"], s["state"]) for s in steps}


def test_a_name_held_by_a_stranger_is_told_and_taken_when_it_is_free(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.docker.remove_container("small-cache", force=True)
    holder = sandbox.stranger("small-cache")
    generation = sandbox.switch()
    status = sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    service = sandbox.daemon.service("cache", status)
    assert (service["phase"], service["reason"]) == ("degraded", "name_conflict")
    assert "small-cache" in service["message"]
    assert sandbox.docker.inspect_container(holder)["State"]["Running"], "a stranger is never touched"
    sandbox.docker.rename(holder, "somebody-else")
    sandbox.daemon.converged(generation, within=10.0)
    sandbox.is_true()
    assert sandbox.docker.inspect_container(holder)["State"]["Running"]
    sandbox.docker.remove_container(holder, force=True)


@pytest.mark.pitfall(9)
def test_an_answer_that_got_lost_is_followed_by_a_look_and_not_by_a_repeat(sandbox: Sandbox) -> None:
    """PITFALLS row 9: the engine did it, and nobody was told."""
    sandbox.daemon.converged(sandbox.switch(app=False, front=False))
    lost: list[str] = []

    def lose_each_first(call: Call) -> str | None:
        path = call.path
        if path.endswith(("/start", "/stop")) and "/exec/" not in path and path not in lost:
            lost.append(path)
            return "lose"
        return None

    mark = sandbox.recorder.mark()
    with sandbox.proxy.hooked(lose_each_first):
        sandbox.daemon.converged(sandbox.switch())
        sandbox.daemon.converged(sandbox.switch(app=False, front=False))
    assert len(lost) == 8
    events = sandbox.recorder.touched(mark, PROJECT)
    for service in ("api", "worker", "web", "edge"):
        done = [e.action for e in events if e.service == service]
        assert done.count("start") == 1
        assert done.count("die") == 1
    assert not any(e.action == "create" for e in events)


def test_a_container_removed_while_it_is_worked_at_is_made_again(sandbox: Sandbox) -> None:
    def remove_first(call: Call) -> str | None:
        path = call.path
        if path.endswith("/start") and "/exec/" not in path:
            sandbox.proxy.hook = None
            with suppress(NotFound):
                sandbox.docker.remove_container(path.split("/")[2], force=True)
        return None

    sandbox.daemon.converged(sandbox.switch(extra=False))
    with sandbox.proxy.hooked(remove_first):
        sandbox.daemon.converged(sandbox.switch())
    sandbox.is_true()
