"""A failing service is reported, retried with back-off, and delays no other."""

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
    """Add lines to the definition of the service that nothing depends on."""
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
    # From the second restart on the crash loop is known; before, it may have been seen running.
    status = sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["restart_count"] >= 2)
    for _ in range(10):
        assert not sandbox.daemon.service("cache", status)["ready"]
        status = sandbox.daemon.until(lambda s, old=status: s != old)  # type: ignore[misc]
    # The generation never converged, whether or not the service was seen running before its first end.
    status = sandbox.daemon.until(
        lambda s: s["observed_generation"] == generation and s["progress"]["state"] == "degraded"
    )
    assert status["progress"]["reason"] == "crash_looping"
    assert status["groups"]["extra"]["phase"] == "degraded"
    # A container between two restarts is hard to stop; it must stop all the same (moby#38737).
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.is_true({"base", "app", "front"})


@pytest.mark.parametrize("policy", ["always", '"no"'])
def test_service_that_ends_soon_after_running_never_converged(sandbox: Sandbox, policy: str) -> None:
    dies = 'environment: {STANDIN_RUN_FOR: "1", STANDIN_EXIT_CODE: "6"}'
    generation = saved(sandbox, with_cache(f"restart: {policy}\n{dies}"))
    # Without a health check running is ready, so the generation converges at first.
    sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    status = sandbox.daemon.until(lambda s: s["progress"]["state"] == "degraded")
    assert (status["generation"], status["observed_generation"]) == (generation, generation)
    assert status["progress"]["reason"] == ("crash_looping" if policy == "always" else "exited")
    # Between two exits it may seem to recover.
    reason = status["progress"]["reason"]
    sandbox.recorder.look_until(
        lambda: sandbox.daemon.get(f"/services/progress/{generation}"),
        lambda service: (service["state"], service["reason"]) == ("degraded", reason),
    )
    # Once corrected, it converges.
    sandbox.daemon.converged(saved(sandbox, COMPOSE))


def test_last_log_lines_and_exit_code_outlive_the_container(sandbox: Sandbox) -> None:
    # A unique exit code: log lines of other tests' failures are kept too.
    saved(sandbox, with_cache('restart: "no"\nenvironment: {STANDIN_FAIL: "41"}'))
    sandbox.daemon.until(lambda s: "code 41" in (sandbox.daemon.service("cache", s)["last_error"] or ""))
    sandbox.daemon.converged(saved(sandbox, COMPOSE))
    kept = sandbox.daemon.cli("logs", "cache", "--previous")
    assert kept.returncode == 0, kept.stderr
    assert "failing, because STANDIN_FAIL is set" in kept.stdout
    assert "code 41" in sandbox.daemon.service("cache", sandbox.daemon.get("/services/status"))["last_error"]


def test_service_that_stays_unhealthy_is_restarted(sandbox: Sandbox) -> None:
    sandbox.edit(
        "stack.yaml", "    services: [cache]\n", "    services: [cache]\n    unhealthy: {after: 1s}\n"
    )
    check = 'healthcheck: {test: [CMD, "false"], interval: 300ms, retries: 1}'
    mark = sandbox.recorder.mark()
    saved(sandbox, with_cache(check))
    sandbox.recorder.until(lambda _: sandbox.recorder.count(mark, "start", "cache") == 4, since=mark)
    sandbox.daemon.until(lambda s: "3 attempts" in sandbox.daemon.service("cache", s)["message"])
    assert sandbox.daemon.service("cache")["phase"] == "degraded"


def test_crash_loop_is_reported_with_its_reason_and_delays_no_other_service(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(base=False, app=False, front=False, extra=False))
    saved(sandbox, with_cache(f'restart: "on-failure"\n{CRASHES}'))
    mark = sandbox.recorder.mark()
    generation = sandbox.switch()
    # All other services run.
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
    # Never in a tight loop, neither by the daemon nor together with the engine.
    starts = [
        e.at for e in sandbox.recorder.touched(mark, PROJECT) if (e.service, e.action) == ("cache", "start")
    ]
    assert len(starts) < 20

    # Once corrected, it starts at once, regardless of the back-off.
    mended = saved(sandbox, COMPOSE)
    sandbox.daemon.converged(mended, within=10.0)
    sandbox.is_true()


def test_back_off_between_starts_grows(sandbox: Sandbox) -> None:
    # Policy `no`: every start is the daemon's.
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
    # Measured up to the call, without the engine's own time for a start.
    ahead = time.time() - time.monotonic()
    calls = [c.at + ahead for c in sandbox.proxy.calls if c.path.endswith("/start") and c.at + ahead > ended]
    assert calls[0] - ended < FIRST * (1 - JITTER), "the first repair is immediate"
    assert gaps[1] > 0.7
    assert gaps[2] > 1.5
    assert sandbox.daemon.service("cache")["last_error"]


def test_unavailable_image_degrades_only_its_service(sandbox: Sandbox) -> None:
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
    # The image becomes available; an event reports it.
    sandbox.docker.tag("service-manager/standin:1", "small/nowhere", "1")
    sandbox.daemon.converged(generation, within=10.0)
    sandbox.is_true()
    sandbox.settle()
    sandbox.docker.remove_image("small/nowhere:1")


def test_running_container_keeps_running_while_its_next_image_is_missing(sandbox: Sandbox) -> None:
    id, started = sandbox.one("cache")["Id"], sandbox.one("cache")["State"]["StartedAt"]
    saved(sandbox, with_cache("image: small/nowhere:1"))
    sandbox.daemon.until(lambda s: sandbox.daemon.service("cache", s)["reason"] == "image_unavailable")
    seen = sandbox.one("cache")
    assert (seen["Id"], seen["State"]["StartedAt"], seen["State"]["Status"]) == (id, started, "running")


def test_missing_image_with_a_build_section_is_built(sandbox: Sandbox) -> None:
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


def test_name_held_by_a_foreign_container_is_reported_and_used_once_free(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(sandbox.switch(extra=False))
    sandbox.docker.remove_container("small-cache", force=True)
    holder = sandbox.stranger("small-cache")
    generation = sandbox.switch()
    status = sandbox.daemon.until(lambda s: s["observed_generation"] == generation)
    service = sandbox.daemon.service("cache", status)
    assert (service["phase"], service["reason"]) == ("degraded", "name_conflict")
    assert "small-cache" in service["message"]
    assert sandbox.docker.inspect_container(holder)["State"]["Running"], "foreign containers stay untouched"
    sandbox.docker.rename(holder, "somebody-else")
    sandbox.daemon.converged(generation, within=10.0)
    sandbox.is_true()
    assert sandbox.docker.inspect_container(holder)["State"]["Running"]
    sandbox.docker.remove_container(holder, force=True)


@pytest.mark.pitfall(9)
def test_lost_response_is_followed_by_an_observation_and_not_by_a_repeat(sandbox: Sandbox) -> None:
    """PITFALLS row 9: the engine executed the call, and the response was lost."""
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


def test_container_removed_during_a_step_is_created_again(sandbox: Sandbox) -> None:
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
