"""Containers that a person's Compose made are adopted where its label is not the hash of the file."""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.engine.compose import find_compose
from reconciler.engine.compose_labels import Labels
from reconciler.ledger import Ledger, Now
from reconciler.observed import Observed
from reconciler.plan import plan
from reconciler.stack import Stack
from reconciler.witness import witness
from tests.builders import a_stack, container, desire, look, service

from .bench import Bench, Make

GUESTS = """
x-all: &all {image: "bed/standin:1", init: true, stop_grace_period: 1s}
services:
  vpn: {<<: *all, network_mode: none, ipc: shareable, volumes: ["data:/data"]}
  torrent: {<<: *all, network_mode: "service:vpn"}
  index: {<<: *all, network_mode: "service:torrent", environment: {A: "1"}}
  memory: {<<: *all, network_mode: none, ipc: "service:vpn"}
  tools: {<<: *all, network_mode: none, pid: "service:vpn"}
  backup: {<<: *all, network_mode: none, volumes_from: ["vpn:ro", "container:some-vpn-1"]}
  panel: {<<: *all, network_mode: none, use_api_socket: true, environment: {A: "1"}}
volumes: {data: {}}
"""
NOW = Now(1e9, 1e3)


def steps(stack: Stack, observed: Observed, ledger: Ledger) -> dict[str, str]:
    desired = desire(stack, *stack.groups)
    ledger = witness(stack, desired, observed, ledger, NOW, chance=0.0)
    found = plan(stack, desired, observed, ledger, NOW)
    return {step.service: step.cause for step in found.steps}


async def test_what_shares_with_another_container_is_adopted_and_its_edits_are_seen(bench: Make) -> None:
    b: Bench = await bench(GUESTS)
    name = b.project.name
    b.project.write(GUESTS.replace("some-vpn-1", f"{name}-vpn-1"))
    b.project.person("up", "-d")
    stack = await b.resolve()
    observed = await b.look()
    made = {c.id: c.config_hash for c in observed.containers}
    assert observed.labels == {c.id: made[c.id] for c in observed.containers if c.service != "vpn"}
    assert steps(stack, observed, Ledger()) == {}
    # Compose agrees: a person's next call remakes nothing either.
    b.project.person("up", "-d")
    assert {c.id: c.config_hash for c in (await b.look()).containers} == made
    # Without any memory an edit of a guest is seen all the same.
    b.project.write(b.project.file.read_text().replace('torrent", environment: {A: "1"}', 'vpn"'))
    stack = await b.resolve()
    assert steps(stack, await b.look(), Ledger()) == {"index": "definition"}


# Recorded from Docker Compose 2.40.3 on a real engine: container ids, and the labels of their guests.
VPN = "c21edac1659aa842a0fd8243f3dc703f0925be6b66a6b98222bfe749115b797d"
MEMORY = "76991f2b1b74923b43c7c38885003ff86c03caed22f2412096bbff0e307ed243"
ALL = {
    "image": "bed/standin:1",
    "command": ["sleep", "100000"],
    "entrypoint": None,
    "network_mode": "none",
    "stop_grace_period": "0s",
}
RECORDED = {
    "b": (
        {"network_mode": "service:c"},
        [("network_mode", VPN)],
        "964869ff34e2ef67196c06577c5e4ba1eb529e4b9d94b375bf6e6efb63cb1925",
    ),
    "i": (
        {"ipc": "service:c"},
        [("ipc", VPN)],
        "ff7e2a6824a3e64f8ee401be02903c79bfd81f342b071960e762ffa0e569aa30",
    ),
    "p": (
        {"pid": "service:c"},
        [("pid", VPN)],
        "1ef23f41f68db5a3c15f63e41452a24f168d4be8587bf7bbf730b7156ba29bf7",
    ),
    "v": (
        {"volumes_from": ["c:ro", "container:t3-c-1", "i"]},
        [("volumes_from", VPN), ("volumes_from", "t3-c-1"), ("volumes_from", MEMORY)],
        "47106bd8bb6425bf9cab5187c2ab517eb852ace6e18fab2a391ebd1d47184378",
    ),
    "s2": (
        {"use_api_socket": True, "environment": {"DOCKER_CONFIG": "/mine"}},
        [],
        "2214c1f5ae3bfc1178ae490f522fad6a50605ac31b7c6386efbfa315f99eceb1",
    ),
}


async def test_labels_are_those_that_compose_wrote(tmp_path: Path) -> None:
    """Needs Docker Compose, and no engine."""
    compose = find_compose({})
    model = tmp_path / "model.json"
    services = {"c": ALL} | {name: ALL | more for name, (more, _, _) in RECORDED.items()}
    model.write_text(json.dumps({"name": "t3", "services": services}))
    stack = a_stack(
        {"g": [service(name) for name in services]},
        model=str(model),
        directory=str(tmp_path),
        compose=compose.version,
    )
    owners = {VPN: "c", MEMORY: "i"}
    seen = look(
        stack,
        *(
            container(stack.services[name], config_hash=label, borrowed=tuple(borrowed))
            for name, (_, borrowed, label) in RECORDED.items()
            if name not in owners.values()
        ),
        container(stack.services["c"], id=VPN),
        container(stack.services["i"], id=MEMORY, config_hash=RECORDED["i"][2], borrowed=(("ipc", VPN),)),
    )

    async def found() -> object:
        return compose

    labels = (await Labels(found, {}).add_to(seen, stack)).labels  # type: ignore[arg-type]
    assert labels == {c.id: RECORDED[c.service][2] for c in seen.containers if c.service in RECORDED}
