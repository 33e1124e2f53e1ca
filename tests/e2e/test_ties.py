"""What is tied to a container follows it, what is tied to nothing is pruned, and booting is ours to order."""

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


def mode(yard: Sandbox, service: str) -> str:
    return str(yard.one(service)["HostConfig"]["NetworkMode"])


def test_who_shares_a_network_is_made_anew_when_its_owner_was(yard: Sandbox) -> None:
    yard.daemon.converged(saved(yard, COMPOSE.replace(EDGE, SHARING)))
    assert mode(yard, "edge") == f"container:{yard.one('web')['Id']}"
    for act in ("removed by hand", "remade by a person", "remade by us"):
        old, mark = yard.one("web")["Id"], yard.recorder.mark()
        if act == "removed by hand":
            yard.docker.remove_container("small-web", force=True)
        elif act == "remade by a person":
            yard.person("up", "-d", "--no-deps", "--force-recreate", "web")
        else:
            text = (yard.desired / "compose.yaml").read_text()
            yard.save("compose.yaml", text.replace("small-web\n", "small-web\n    hostname: other\n"))
        yard.recorder.look_until(
            lambda: (mode(yard, "edge"), yard.one("edge")["State"]["Running"]),
            lambda seen, old=old: seen[1] and seen[0] != f"container:{old}",  # type: ignore[misc]
        )
        yard.daemon.converged()
        assert mode(yard, "edge") == f"container:{yard.one('web')['Id']}"
        assert yard.recorder.count(mark, "create", "edge") <= 2, act


def test_who_asked_for_it_is_restarted_after_its_dependency_was_by_whomever(yard: Sandbox) -> None:
    follows = EDGE.replace("[web]", "{web: {condition: service_started, restart: true}}")
    yard.daemon.converged(saved(yard, COMPOSE.replace(EDGE, follows)))
    ids = yard.ids()
    for deed in (lambda: yard.docker.restart("small-web"), lambda: yard.docker.kill("small-web")):
        mark = yard.recorder.mark()
        deed()
        yard.recorder.until(lambda e: (e.service, e.action) == ("edge", "start"), since=mark)
        yard.daemon.converged()
        assert yard.recorder.count(mark, "start", "edge") == 1
        assert yard.one("edge")["State"]["StartedAt"] > yard.one("web")["State"]["StartedAt"]
    assert yard.ids() == ids


@pytest.mark.pitfall(42)
def test_orphans_are_pruned_when_asked_for_and_their_volumes_stay(yard: Sandbox) -> None:
    labels = {PROJECT_LABEL: PROJECT, SERVICE: "former"}
    host = yard.docker.create_host_config(network_mode="none", binds=["former-data:/data"])
    made = yard.docker.create_container(
        "service-manager/standin:1", name="small-former", labels=labels, host_config=host
    )
    yard.docker.start(made["Id"])
    yard.daemon.until(lambda s: s["orphans"] == ["small-former"])
    assert yard.docker.inspect_container(made["Id"])["State"]["Running"]
    mark = yard.recorder.mark()
    generation = yard.edit("stack.yaml", "name: small\n", "name: small\nprune: true\n")
    yard.recorder.until(lambda e: e.action == "destroy" and e.id == made["Id"], since=mark)
    yard.daemon.converged(generation)
    assert {e.id for e in yard.recorder.touched(mark, PROJECT)} == {made["Id"]}
    assert yard.docker.inspect_volume("former-data")
    assert yard.daemon.get("/services/status")["orphans"] == []
    yard.docker.remove_volume("former-data")


@pytest.mark.pitfall(17)
def test_where_restarting_is_ours_a_boot_comes_up_in_order_and_what_is_off_stays_off(yard: Sandbox) -> None:
    ids = yard.ids()
    before = yard.daemon.get("/services/status")["generation"]
    yard.save("stack.yaml", STACK + "restart: managed\n")
    yard.next_generation(before)
    yard.daemon.converged(yard.switch(extra=False))
    assert yard.ids() == ids
    policies = {
        c["HostConfig"]["RestartPolicy"]["Name"]
        for c in yard.recorder.containers(PROJECT)
        if c["Config"]["Labels"][SERVICE] in ids
    }
    assert policies == {"no"}
    yard.daemon.end()
    mark = yard.recorder.mark()
    yard.restart_engine()
    assert not any(
        c["State"]["Running"]
        for c in yard.recorder.containers(PROJECT)
        if c["Config"]["Labels"][SERVICE] in ids
    )
    yard.daemon.start()
    yard.daemon.converged()
    started = [e for e in yard.recorder.touched(mark, PROJECT) if e.action == "start"]
    order = [e.service for e in started if e.service in ids]
    assert order == sorted(order, key=["db", "api", "worker", "web", "edge"].index)
    assert "cache" not in order
    assert "migrate" not in order
    assert yard.ids() == ids
    # A person's own Compose finds nothing to do about it.
    yard.person("up", "-d", "--no-deps", "db", "api")
    assert yard.ids() == ids
