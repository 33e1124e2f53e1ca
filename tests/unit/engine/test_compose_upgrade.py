"""Another Docker Compose hashes the same files differently: that is no change, and recreates nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired_state.assemble import inputs_digest
from reconciler.desired_state.compose_model import services_from
from reconciler.model.ledger import Ledger
from reconciler.model.observed import State
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Stack
from reconciler.planning.planner import plan
from reconciler.planning.record_observation import record_observation
from tests.support.fixtures.builders import NOW, a_stack, container, desire, look, service

A = service("a")


def resolved(version: str, inputs: str = "files", definition: str = "def-a") -> Stack:
    """The same service, as resolved by this version of Compose."""
    one = replace(
        A, config_hash=f"hash of {version} {inputs}", definition=definition, fields={"x": definition}
    )
    return a_stack({"main": [one]}, inputs=inputs, compose=version)


OLD = resolved("2.20")
MADE = container(OLD.services["a"], compose="2.20")


def after(*stacks: Stack, on: bool = True) -> Ledger:
    ledger = Ledger()
    for stack in stacks:
        desired = desire(stack, *(["main"] if on else []))
        ledger = record_observation(stack, desired, look(stack, MADE), ledger, NOW, chance=0.5)
    return ledger


def text(stack: Stack, ledger: Ledger) -> str:
    return str(plan(stack, desire(stack, "main"), look(stack, MADE), ledger, NOW))


def test_the_same_files_resolved_by_another_version_are_the_same_definition() -> None:
    for definition in ("def-a", "other fields for the same bytes"):
        new = resolved("2.40", definition=definition)
        assert text(new, after(OLD, new)) == "nothing to do"


def test_an_edit_counts_with_any_version() -> None:
    new = resolved("2.40", "edited", "edited")
    assert text(new, after(OLD, new)) == "a: stop (definition: differs in x)"
    # First the upgrade, then the edit.
    upgraded = resolved("2.40", definition="other fields")
    assert text(new, after(OLD, upgraded, new)) == "a: stop (definition: differs in x)"


def test_an_edit_of_a_service_that_is_off_is_not_lost() -> None:
    new = resolved("2.40", "edited", "edited")
    assert text(new, after(OLD, on=False)) == "a: stop (definition: differs in x)"


def test_an_unknown_container_of_another_version_is_adopted() -> None:
    new = resolved("2.40")
    assert text(new, after(new)) == "nothing to do"
    same = replace(MADE, compose="2.40")
    ledger = record_observation(new, desire(new, "main"), look(new, same), Ledger(), NOW, chance=0.5)
    found = plan(new, desire(new, "main"), look(new, same), ledger, NOW)
    assert str(found) == "a: stop (definition: was created from another definition)"


def test_service_manager_s_own_keys_are_no_input_of_compose() -> None:
    sources = {"compose.yaml": "1", "a.env": "2", "groups.yaml": "3", "stack.yaml": "4"}
    same = {**sources, "groups.yaml": "x", "stack.yaml": "y"}
    assert inputs_digest("p", sources) == inputs_digest("p", same)
    assert inputs_digest("p", sources) != inputs_digest("p", {**sources, "a.env": "x"})
    assert inputs_digest("p", sources) != inputs_digest("q", sources)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(versions=st.lists(st.sampled_from(["2.20", "2.29", "2.40", "5.1"]), min_size=1, max_size=6))
def test_repeated_changes_of_compose_recreate_nothing(versions: list[str]) -> None:
    stacks = [resolved(version, definition=f"def of {version}") for version in versions]
    ledger = after(OLD, *stacks)
    assert text(stacks[-1], ledger) == "nothing to do"
    stopped = look(stacks[-1], replace(MADE, state=State.EXITED))
    found = plan(stacks[-1], desire(stacks[-1], "main"), stopped, ledger, NOW)
    assert [str(s.action) for s in found.steps] == ["start"]


# One file, as Docker Compose 2.40.3 and 5.5.0 resolve and hash it; recorded.
_BIND = {"2.40.3": {"create_host_path": True}, "5.5.0": {}}
_HASHES = {
    "2.40.3": "354920bb18a40431dd161fdead51d4cfce76bc0d364794f538b70d2da3e243fb",
    "5.5.0": "29bf2635f375002bce84bb011203612367a83aca9dbad1e92c8cc46c35cb6eba",
}


def recorded(version: str, inputs: str = "files", **edited: object) -> Stack:
    entry = {
        "command": None,
        "container_name": "socket-proxy",
        "entrypoint": None,
        "environment": {"CONTAINERS": "1", "EVENTS": "1"},
        "image": "lscr.io/linuxserver/socket-proxy:latest",
        "networks": {"docker-proxynet": None},
        "read_only": True,
        "restart": "always",
        "tmpfs": ["/run"],
        "volumes": [
            {
                "type": "bind",
                "source": "/var/run/docker.sock",
                "target": "/var/run/docker.sock",
                "read_only": True,
                "bind": _BIND[version],
            }
        ],
        **edited,
    }
    text = json.dumps({"name": "case", "services": {"proxy": entry}}).encode()
    hashes = {"proxy": _HASHES[version] if not edited else f"hash of {edited} by {version}"}
    services = services_from(Resolved(text, hashes, version), "case")
    return a_stack({"main": list(services.values())}, inputs=inputs, compose=version)


def outcome(stack: Stack, made_by: str, ledger: Ledger) -> str:
    made = container(recorded(made_by).services["proxy"], compose=made_by)
    observed = look(stack, made)
    ledger = record_observation(stack, desire(stack, "main"), observed, ledger, NOW, chance=0.5)
    return str(plan(stack, desire(stack, "main"), observed, ledger, NOW))


@pytest.mark.parametrize("made_by", list(_HASHES))
@pytest.mark.parametrize("known_to", [None, *_HASHES])
@pytest.mark.parametrize("daemon", list(_HASHES))
def test_between_2_40_and_5_nothing_is_recreated_with_any_creator_and_ledger(
    made_by: str, known_to: str | None, daemon: str
) -> None:
    """Issue 13, 5, replayed from recorded outputs."""
    ledger = Ledger()
    if known_to is not None:
        before = recorded(known_to)
        made = container(recorded(made_by).services["proxy"], compose=made_by)
        ledger = record_observation(
            before, desire(before, "main"), look(before, made), ledger, NOW, chance=0.5
        )
        assert "proxy" in {c.service for c in look(before, made).containers if c.id in ledger.made}
    assert outcome(recorded(daemon), made_by, ledger) == "nothing to do"
    if known_to is not None:
        # An edit is detected across versions, even if the new version never read the old files.
        edit = recorded(daemon, "edited", environment={"CONTAINERS": "0", "EVENTS": "1"})
        told = "proxy: stop (definition: differs in environment.CONTAINERS)"
        assert outcome(edit, made_by, ledger) == told
