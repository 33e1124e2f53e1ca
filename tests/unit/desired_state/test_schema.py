from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.desired_state.schema import json_schema, read_groups, read_stack
from reconciler.host.yaml_positions import parse_document
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.stack import Strength
from tests.support.fixtures.desired_state import STACK

SHIPPED = Path(__file__).parents[3] / "desired-state"


def groups(text: str) -> list[str]:
    return [str(mistake) for mistake in read_groups(parse_document("groups.yaml", text.encode())).mistakes]


def stack(text: str) -> list[str]:
    return [str(mistake) for mistake in read_stack(parse_document("stack.yaml", text.encode())).mistakes]


def state(text: str) -> GroupState:
    read = read_groups(parse_document("groups.yaml", f"groups:\n  a: {text}\n".encode()))
    assert read.value, read.mistakes
    return read.value.groups["a"].group_state()


@pytest.mark.parametrize("text", ["on", "true", '"on"', "'true'", "On", "{state: on}", '{state: "true"}'])
def test_spellings_of_on(text: str) -> None:
    assert state(text) == GroupState(on=True)


@pytest.mark.parametrize("text", ["off", "false", '"off"', "OFF", "{state: false}"])
def test_spellings_of_off(text: str) -> None:
    assert state(text) == GroupState(on=False)


def test_all_fields_of_a_group_state() -> None:
    text = (
        "{state: on, force: true, suspend: {until: 2026-11-24T06:00:00Z, reason: 7},"
        " restarted_at: 1970-01-01T00:00:05Z, accepted_at: '1970-01-01T01:00:06+01:00'}"
    )
    assert state(text) == GroupState(
        on=True, force=True, suspend=Suspension(1795500000.0, "7"), restarted_at=5.0, accepted_at=6.0
    )


@pytest.mark.parametrize(
    ("text", "suspend"),
    [("true", Suspension()), ("on", Suspension()), ("{}", Suspension()), ("false", None), ("off", None)],
)
def test_notations_of_suspend(text: str, suspend: Suspension | None) -> None:
    assert state(f"{{state: on, suspend: {text}}}").suspend == suspend


def test_every_mistake_of_groups_yaml_has_its_position() -> None:
    text = """\
groups:
  a: maybe
  b: {state: "on", force: perhaps, suspend: {until: 2026-01-01, reasn: x}, restarted_at: 2026-11-23T18:00:00}
  c: {stat: on}
  d:
extra: 1
"""
    assert sorted(groups(text)) == [
        'groups.yaml:2:6: groups.a.state: expected on or off, found "maybe"',
        'groups.yaml:3:27: groups.b.force: expected true or false, found "perhaps"',
        "groups.yaml:3:53: groups.b.suspend.until: expected a time with its zone, such as "
        '2026-11-23T18:00:00Z; found "2026-01-01"',
        "groups.yaml:3:65: unknown key 'reasn'; did you mean 'reason'?",
        "groups.yaml:3:90: groups.b.restarted_at: expected a time with its zone, such as "
        '2026-11-23T18:00:00Z; found "2026-11-23T18:00:00"',
        "groups.yaml:4:3: groups.c.state is missing",
        "groups.yaml:4:7: unknown key 'stat'; did you mean 'state'?",
        "groups.yaml:5:3: groups.d.state: expected on or off, found nothing",
        "groups.yaml:6:1: unknown key 'extra'; valid keys: groups",
    ]


def test_every_mistake_of_stack_yaml_has_its_position() -> None:
    text = """\
name: My Stack
compose: []
pilot: {group: [a], memory: 5}
groups:
  a:
    descripton: x
    services: db
    memory: 700
    depends_on: {b: of}
    unhealthy: {after: 2 minutes, action: reboot, limit: 3}
    on_change: maybe
  b: {}
prune: maybe
restart: never
"""
    mistakes = sorted(stack(text), key=lambda line: [int(n) for n in line.split(":")[1:3]])
    assert [line.split(": ", 1)[0].removeprefix("stack.yaml:") for line in mistakes] == [
        "1:7", "2:10", "3:9", "3:29", "6:5", "7:15", "8:13", "9:17", "10:24", "10:43", "10:58", "11:16",
        "12:3", "13:8", "14:10",
    ]  # fmt: skip
    assert "did you mean 'groups'" in mistakes[2]
    assert "did you mean 'description'" in mistakes[4]
    assert 'expected a list, as in [one, two], found "db"' in mistakes[5]
    assert 'expected restart, recreate or report, found "reboot"' in mistakes[9]


@pytest.mark.parametrize("text", ["- a", "hello", "groups: x", "groups: [a]", "x: 1", "groups:"])
def test_document_that_is_no_mapping(text: str) -> None:
    assert groups(text)
    assert stack(text)


def test_group_dependencies_have_two_strengths() -> None:
    text = STACK.replace("{base: on}", "{}")
    for value, strength in (("[base]", "ready"), ("{base: ready}", "ready"), ("{base: on}", "on")):
        read = read_stack(parse_document("stack.yaml", text.replace("{}", value).encode())).value
        assert read
        assert read.groups["web"].depends_on == {"base": Strength(strength)}


def test_json_schemas_describe_every_key_and_the_short_notations() -> None:
    schemas = json_schema()
    for schema in schemas.values():
        for entry in (schema, *schema["$defs"].values()):
            assert all(described.get("description") for described in entry["properties"].values())
            assert entry["additionalProperties"] is False
    short, long = schemas["groups.yaml"]["properties"]["groups"]["additionalProperties"]["anyOf"]
    assert "on" in short["enum"]
    assert long == {"$ref": "#/$defs/StateEntry"}
