"""Labels of definitions that Compose changes before it hashes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.compose.discovery import Compose
from reconciler.engine.compose.labels import Labels, as_created, reproducible, rewritten
from reconciler.errors import StepFailed
from reconciler.model.observed import Container, ObservedState
from reconciler.model.stack import Stack
from tests.support.fixtures.builders import a_stack, container, look, service

VPN, OTHER = "a" * 64, "b" * 64
OWNERS = {VPN: "vpn", OTHER: "other"}


@pytest.mark.parametrize("key", ["network_mode", "ipc", "pid"])
def test_an_id_replaces_a_service_whose_namespace_is_shared(key: str) -> None:
    definition = {"image": "x", key: "service:vpn"}
    assert as_created(definition, [(key, VPN)], OWNERS) == {"image": "x", key: f"container:{VPN}"}
    # A container that does not exist any more; whether another one must be joined is decided elsewhere.
    assert as_created(definition, [(key, "c" * 64)], OWNERS) == {"image": "x", key: f"container:{'c' * 64}"}


@pytest.mark.parametrize("key", ["network_mode", "ipc", "pid"])
def test_a_container_that_joins_another_service_or_none_has_another_definition(key: str) -> None:
    assert as_created({key: "service:vpn"}, [(key, OTHER)], OWNERS) is None
    assert as_created({key: "service:vpn"}, [], OWNERS) is None


def test_volumes_of_services_and_of_containers_by_name() -> None:
    definition = {"volumes_from": ["vpn:ro", "container:box:rw", "other"]}
    given = [("volumes_from", VPN), ("volumes_from", "box"), ("volumes_from", OTHER)]
    assert as_created(definition, given, OWNERS) == {"volumes_from": [VPN, "box", OTHER]}
    for wrong in (given[:2], [given[2], *given[1:]], [given[0], ("volumes_from", "bag"), given[2]]):
        assert as_created(definition, wrong, OWNERS) is None
    assert as_created({"image": "x"}, [given[0]], OWNERS) is None


def test_the_socket_and_its_credentials_are_mounted_behind_what_the_file_names() -> None:
    made = as_created({"use_api_socket": True, "configs": [{"source": "x"}], "volumes": []}, [], {})
    assert made == {
        "use_api_socket": True,
        "volumes": [{"type": "bind", "source": "/var/run/docker.sock", "target": "/var/run/docker.sock"}],
        "configs": [
            {"source": "x"},
            {"source": "#apisocket", "target": "/run/secrets/docker/config.json"},
        ],
        "environment": {"DOCKER_CONFIG": "/run/secrets/docker"},
    }
    own = as_created({"use_api_socket": True, "environment": {"DOCKER_CONFIG": "/mine"}}, [], {})
    assert own is not None
    assert own["environment"] == {"DOCKER_CONFIG": "/mine"}


@pytest.mark.parametrize(
    ("definition", "is_rewritten", "old", "new"),
    [
        ({"network_mode": "host", "pid": "container:x"}, False, True, True),
        ({"network_mode": "service:vpn"}, True, True, True),
        ({"volumes_from": ["container:x"]}, True, False, True),
        ({"use_api_socket": True}, True, True, True),
        ({"models": {"llm": None}}, True, False, False),
        ({"depends_on": {"db": {}}}, True, False, False),
        ({"depends_on": {"vpn": {}}}, False, True, True),
        ({"volumes": [{"type": "image", "source": "x", "target": "/x"}]}, True, False, False),
    ],
)
def test_which_definitions_compose_changes_and_which_are_reproducible(
    definition: dict[str, Any], is_rewritten: bool, old: bool, new: bool
) -> None:
    services = {"db": {"provider": {"type": "cloud"}}, "vpn": {"image": "x"}}
    assert rewritten(definition, services) is is_rewritten
    assert reproducible(definition, services, (2, 29, 7)) is old
    assert reproducible(definition, services, (2, 30, 0)) is new


# --- labels of an observation ---

SERVICES = {
    "vpn": {"image": "x"},
    "guest": {"image": "x", "network_mode": "service:vpn"},
    "plain": {"image": "x"},
    "model": {"image": "x", "models": {"llm": None}},
}


class Answering:
    """A Compose that records its input, and returns one hash per service."""

    def __init__(self, folder: Path, *, code: int = 0) -> None:
        self.given, self.calls = folder / "given", folder / "calls"
        program = folder / "compose"
        program.write_text(
            f'#!/bin/sh\n/bin/cat > {self.given}\necho "$@" >> {self.calls}\n'
            "for last; do :; done\n"
            f"for name in $(echo $last | tr , ' '); do echo $name hash-of-$name; done\nexit {code}\n"
        )
        program.chmod(0o755)
        self.found = Compose(str(program), "2.40.3", "path")

    async def __call__(self) -> Compose:
        return self.found


def stack_of(folder: Path) -> Stack:
    model = folder / "model.json"
    model.write_text(json.dumps({"services": SERVICES}))
    return a_stack({"g": [service(name) for name in SERVICES]}, model=str(model), compose="2.40.3")


def seen(stack: Stack, *, guest: str = VPN, compose: str = "2.40.3") -> ObservedState:
    made = {name: container(stack.services[name], compose=compose) for name in SERVICES}
    of_guest = {"borrowed": (("network_mode", guest),)}
    return look(stack, *(changed(c, **(of_guest if name == "guest" else {})) for name, c in made.items()))


def changed(of: Container, **fields: Any) -> Container:
    return replace(of, config_hash=f"label-{of.service}", **fields)


async def test_compose_hashes_each_changed_definition_once(tmp_path: Path) -> None:
    compose, stack = Answering(tmp_path), stack_of(tmp_path)
    labels = Labels(compose, {})
    for _ in range(3):
        found = await labels.add_to(seen(stack), stack)
        assert found.labels == {"id-guest": "hash-of-guest", "id-model": ""}
    assert compose.calls.read_text().splitlines() == [
        "--ansi never -f - --project-directory  -p test --profile * config --no-consistency --hash guest"
    ]
    given = json.loads(compose.given.read_text())["services"]
    assert given == {**SERVICES, "guest": {"image": "x", "network_mode": f"container:{VPN}"}}
    # With another container in place of the one that it uses, the label differs.
    await labels.add_to(seen(stack, guest=OTHER), stack)
    assert len(compose.calls.read_text().splitlines()) == 2


async def test_matching_labels_need_no_call_of_compose(tmp_path: Path) -> None:
    compose, stack = Answering(tmp_path), stack_of(tmp_path)
    equal = look(stack, *(container(stack.services[name]) for name in SERVICES))
    for observed in (equal, seen(stack, compose="2.30.3"), ObservedState(complete=False)):
        assert (await Labels(compose, {}).add_to(observed, stack)).labels == {}
    assert not compose.calls.exists()


async def test_a_failing_compose_makes_a_label_unknown_and_is_not_called_again(tmp_path: Path) -> None:
    compose, stack = Answering(tmp_path, code=1), stack_of(tmp_path)
    labels = Labels(compose, {})
    for _ in range(2):
        assert (await labels.add_to(seen(stack), stack)).labels == {"id-guest": "", "id-model": ""}
    assert len(compose.calls.read_text().splitlines()) == 1

    async def missing() -> Compose:
        raise StepFailed("no Compose", "compose_missing")

    assert (await Labels(missing, {}).add_to(seen(stack), stack)).labels["id-guest"] == ""


@pytest.mark.parametrize(
    "model", ["", "[]", "{", "[" * 100_000, '{"services": []}', '{"services": {"guest": 1}}']
)
async def test_no_malformed_model_ends_the_observation(tmp_path: Path, model: str) -> None:
    stack = stack_of(tmp_path)
    Path(stack.model).write_text(model)
    found = await Labels(Answering(tmp_path), {}).add_to(seen(stack), stack)
    assert found.complete
    assert set(found.labels.values()) <= {""}
