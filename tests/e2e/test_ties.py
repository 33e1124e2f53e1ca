"""Services that share or follow a container, orphans, and boot order with `restart: managed`."""

from __future__ import annotations

import pytest

from tests.e2e.test_failures import saved
from tests.support.harness.engine_recorder import PROJECT as PROJECT_LABEL
from tests.support.harness.engine_recorder import SERVICE
from tests.support.harness.sandbox import COMPOSE, PROJECT, STACK, Sandbox

EDGE = """\
    <<: *standin
    container_name: small-edge
    depends_on: [web]
    networks: [outer]
"""
SHARING = """\
    image: service-manager/standin:1
    pull_policy: never
    restart: unless-stopped
    container_name: small-edge
    network_mode: service:web
"""


def mode(sandbox: Sandbox, service: str) -> str:
    return str(sandbox.one(service)["HostConfig"]["NetworkMode"])


def test_service_that_shares_a_network_is_recreated_after_its_owner(sandbox: Sandbox) -> None:
    sandbox.daemon.converged(saved(sandbox, COMPOSE.replace(EDGE, SHARING)))
    assert mode(sandbox, "edge") == f"container:{sandbox.one('web')['Id']}"
    for act in ("removed by hand", "remade by a person", "remade by us"):
        old, mark = sandbox.one("web")["Id"], sandbox.recorder.mark()
        if act == "removed by hand":
            sandbox.docker.remove_container("small-web", force=True)
        elif act == "remade by a person":
            sandbox.person("up", "-d", "--no-deps", "--force-recreate", "web")
        else:
            text = (sandbox.desired / "compose.yaml").read_text()
            sandbox.save("compose.yaml", text.replace("small-web\n", "small-web\n    hostname: other\n"))
        sandbox.recorder.look_until(
            lambda: (mode(sandbox, "edge"), sandbox.one("edge")["State"]["Running"]),
            lambda seen, old=old: seen[1] and seen[0] != f"container:{old}",  # type: ignore[misc]
        )
        sandbox.daemon.converged()
        assert mode(sandbox, "edge") == f"container:{sandbox.one('web')['Id']}"
        assert sandbox.recorder.count(mark, "create", "edge") <= 2, act


def test_depends_on_restart_follows_any_restart_of_the_dependency(sandbox: Sandbox) -> None:
    follows = EDGE.replace("[web]", "{web: {condition: service_started, restart: true}}")
    sandbox.daemon.converged(saved(sandbox, COMPOSE.replace(EDGE, follows)))
    ids = sandbox.ids()
    for deed in (lambda: sandbox.docker.restart("small-web"), lambda: sandbox.docker.kill("small-web")):
        mark = sandbox.recorder.mark()
        deed()
        sandbox.recorder.until(lambda e: (e.service, e.action) == ("edge", "start"), since=mark)
        sandbox.daemon.converged()
        assert sandbox.recorder.count(mark, "start", "edge") == 1
        assert sandbox.one("edge")["State"]["StartedAt"] > sandbox.one("web")["State"]["StartedAt"]
    assert sandbox.ids() == ids


@pytest.mark.pitfall(42)
def test_prune_removes_orphans_and_keeps_their_volumes(sandbox: Sandbox) -> None:
    labels = {PROJECT_LABEL: PROJECT, SERVICE: "former"}
    host = sandbox.docker.create_host_config(network_mode="none", binds=["former-data:/data"])
    made = sandbox.docker.create_container(
        "service-manager/standin:1", name="small-former", labels=labels, host_config=host
    )
    sandbox.docker.start(made["Id"])
    sandbox.daemon.until(lambda s: s["orphans"] == ["small-former"])
    assert sandbox.docker.inspect_container(made["Id"])["State"]["Running"]
    mark = sandbox.recorder.mark()
    generation = sandbox.edit("stack.yaml", "name: small\n", "name: small\nprune: true\n")
    sandbox.recorder.until(lambda e: e.action == "destroy" and e.id == made["Id"], since=mark)
    sandbox.daemon.converged(generation)
    assert {e.id for e in sandbox.recorder.touched(mark, PROJECT)} == {made["Id"]}
    assert sandbox.docker.inspect_volume("former-data")
    assert sandbox.daemon.get("/services/status")["orphans"] == []
    sandbox.docker.remove_volume("former-data")


@pytest.mark.pitfall(17)
def test_managed_restart_boots_in_order_and_what_is_off_stays_off(
    sandbox: Sandbox,
) -> None:
    ids = sandbox.ids()
    before = sandbox.daemon.get("/services/status")["generation"]
    sandbox.save("stack.yaml", STACK + "restart: managed\n")
    sandbox.next_generation(before)
    sandbox.daemon.converged(sandbox.switch(extra=False))
    assert sandbox.ids() == ids
    policies = {
        c["HostConfig"]["RestartPolicy"]["Name"]
        for c in sandbox.recorder.containers(PROJECT)
        if c["Config"]["Labels"][SERVICE] in ids
    }
    assert policies == {"no"}
    sandbox.daemon.end()
    mark = sandbox.recorder.mark()
    sandbox.restart_engine()
    assert not any(
        c["State"]["Running"]
        for c in sandbox.recorder.containers(PROJECT)
        if c["Config"]["Labels"][SERVICE] in ids
    )
    sandbox.daemon.start()
    sandbox.daemon.converged()
    started = [e for e in sandbox.recorder.touched(mark, PROJECT) if e.action == "start"]
    order = [e.service for e in started if e.service in ids]
    assert order == sorted(order, key=["db", "api", "worker", "web", "edge"].index)
    assert "cache" not in order
    assert "migrate" not in order
    assert sandbox.ids() == ids
    # Compose itself has nothing to do afterwards.
    sandbox.person("up", "-d", "--no-deps", "db", "api")
    assert sandbox.ids() == ids
