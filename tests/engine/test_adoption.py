"""Containers of a person's Compose are adopted even if its label is not the hash of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.engine.compose.discovery import find_compose
from reconciler.engine.compose.labels import Labels
from reconciler.model.ledger import Clock, Ledger
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Stack
from reconciler.planning.planner import plan
from reconciler.planning.record_observation import record_observation
from reconciler.quickstart.compose_fetch import program_of_archive
from tests.support.fixtures.builders import a_stack, container, desire, look, service
from tests.support.harness.adapter import AdapterHarness, Make
from tests.support.harness.private_engine import PrivateEngine

from .conftest import ENGINES

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
NOW = Clock(1e9, 1e3)


def steps(stack: Stack, observed: ObservedState, ledger: Ledger) -> dict[str, str]:
    desired = desire(stack, *stack.groups)
    ledger = record_observation(stack, desired, observed, ledger, NOW, chance=0.0)
    found = plan(stack, desired, observed, ledger, NOW)
    return {step.service: step.cause for step in found.steps}


async def test_containers_that_join_another_are_adopted_and_their_edits_detected(bench: Make) -> None:
    b: AdapterHarness = await bench(GUESTS)
    name = b.project.name
    b.project.write(GUESTS.replace("some-vpn-1", f"{name}-vpn-1"))
    b.project.person("up", "-d")
    stack = await b.resolve()
    observed = await b.look()
    made = {c.id: c.config_hash for c in observed.containers}
    assert observed.labels == {c.id: made[c.id] for c in observed.containers if c.service != "vpn"}
    assert steps(stack, observed, Ledger()) == {}
    # Compose agrees: a person's next call recreates nothing either.
    b.project.person("up", "-d")
    assert {c.id: c.config_hash for c in (await b.look()).containers} == made
    # An edit of a joined container is detected even without a ledger.
    b.project.write(b.project.file.read_text().replace('torrent", environment: {A: "1"}', 'vpn"'))
    stack = await b.resolve()
    assert steps(stack, await b.look(), Ledger()) == {"index": "definition"}


OLDER = "2.30.3"
"""The oldest version supported without a warning: the first that leaves ``depends_on`` out of its hash."""


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of an older Compose, from its source archive."""
    program = tmp_path_factory.mktemp("older") / "docker-compose"
    program_of_archive(OLDER, program)
    program.chmod(0o755)
    return program


@pytest.fixture
def use(clean: PrivateEngine, older: Path) -> Iterator[Callable[[str], str]]:
    """Uses another Compose from now on; returns its version."""
    plugin = Path(clean.environ["DOCKER_CONFIG"]) / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True, exist_ok=True)

    def chosen(which: str) -> str:
        plugin.unlink(missing_ok=True)
        if which == "older":
            shutil.copy(older, plugin)
        return find_compose(clean.environ).version

    yield chosen
    plugin.unlink(missing_ok=True)


@pytest.mark.pitfall(4)
@pytest.mark.parametrize("clean", list(ENGINES)[:1], indirect=True)
@pytest.mark.parametrize(("person", "daemon"), [("older", "older"), ("older", "ours"), ("ours", "older")])
async def test_containers_of_any_compose_are_adopted_and_edited_ones_recreated(
    bench: Make, use: Callable[[str], str], person: str, daemon: str
) -> None:
    text = "".join(line for line in GUESTS.splitlines(keepends=True) if "use_api_socket" not in line)
    b: AdapterHarness = await bench(text)
    b.project.write(text := text.replace("some-vpn-1", f"{b.project.name}-vpn-1"))
    made_by = use(person)
    b.project.person("up", "-d")
    looks = use(daemon)
    assert (made_by == OLDER, looks == OLDER) == (person == "older", daemon == "older")

    async def seen() -> tuple[Stack, ObservedState]:
        # As in the loop: the version that resolved the files, and a digest of the files.
        resolved = await b.resolve()
        stack = replace(resolved, compose=looks, inputs=b.project.file.read_text())
        return stack, await b.engine.observe(stack)

    stack, observed = await seen()
    assert {c.compose for c in observed.containers} == {made_by}
    desired = desire(stack, *stack.groups)
    ledger = record_observation(stack, desired, observed, Ledger(), NOW, chance=0.0)
    assert steps(stack, observed, ledger) == {}
    # The ledger of what the daemon adopted distinguishes an edit from a Compose that hashes differently.
    b.project.write(text.replace('torrent", environment: {A: "1"}', 'vpn"'))
    stack, observed = await seen()
    assert steps(stack, observed, ledger) == {"index": "definition"}


# Recorded from Docker Compose 2.40.3 on a real engine: container ids, and the labels of the containers that
# join them.
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


async def test_labels_equal_those_of_compose(tmp_path: Path) -> None:
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
