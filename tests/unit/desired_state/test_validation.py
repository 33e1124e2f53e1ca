"""Mistakes between values and between files, reported by the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixtures.desired_state import COMPOSE, GROUPS, STACK, a_directory, mistakes_of


async def test_valid_directory_has_no_mistakes(tmp_path: Path) -> None:
    assert await mistakes_of(a_directory(tmp_path)) == []


async def test_missing_group_and_unknown_group(tmp_path: Path) -> None:
    a_directory(tmp_path, groups=GROUPS.replace("web:", "wbe:"))
    assert await mistakes_of(tmp_path) == [
        "groups.yaml:2:1: every group of stack.yaml is named here, also those that are off; missing: web",
        "groups.yaml:4:3: unknown group 'wbe'; did you mean 'web'?",
    ]


async def test_service_in_two_groups_names_both_positions(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK.replace("[app]", "[app, db]"))
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:10:21: the service 'db' is also in the group 'base' (line 6, column 16); "
        "one group can have it"
    ]


async def test_service_twice_in_one_group(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK.replace("[app]", "[app, app]"))
    assert "twice in this group" in (await mistakes_of(tmp_path))[0]


async def test_service_that_no_compose_file_has(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK.replace("cache]", "cahce]"))
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:6:20: unknown service 'cahce'; did you mean 'cache'? (no Compose file has it)"
    ]


async def test_cycle_of_groups_names_its_members_in_order(tmp_path: Path) -> None:
    more = "  c: {services: [cache], depends_on: [web]}\n"
    stack = STACK.replace("[db, cache]\n", "[db]\n    depends_on: {c: on}\n") + more
    a_directory(tmp_path, stack=stack, groups=GROUPS + "  c: off\n")
    (mistake,) = await mistakes_of(tmp_path)
    assert mistake.startswith("stack.yaml:")
    cycle = mistake.rpartition(": ")[2].split(" → ")
    assert cycle[0] == cycle[-1]
    assert "".join(name[0] for name in cycle * 2).count("bcw") >= 1


async def test_group_that_depends_on_itself(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK.replace("{base: on}", "[web]"))
    assert await mistakes_of(tmp_path) == ["stack.yaml:12:18: the group 'web' depends on itself"]


async def test_services_that_wait_for_each_other_through_groups(tmp_path: Path) -> None:
    compose = COMPOSE.replace('"db:1",', '"db:1", depends_on: [app],').replace(", depends_on: [db]", "")
    a_directory(tmp_path, compose=compose)
    assert await mistakes_of(tmp_path) == []
    a_directory(tmp_path, compose=compose, stack=STACK.replace("{base: on}", "[base]"))
    (mistake,) = await mistakes_of(tmp_path)
    assert mistake.startswith("stack.yaml:12:17: these wait for each other, so none could start: ")
    assert {"app", "db", "group base"} <= set(mistake.rpartition(": ")[2].split(" → "))


async def test_unknown_groups_in_depends_on_and_pilot(tmp_path: Path) -> None:
    a_directory(
        tmp_path, stack=STACK.replace("{base: on}", "{bas: on}").replace("groups: [base]", "groups: [x]")
    )
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:3:18: unknown group 'x'",
        "stack.yaml:12:18: unknown group 'bas'; did you mean 'base'?",
    ]


async def test_all_mistakes_of_both_files_in_order(tmp_path: Path) -> None:
    stack = STACK.replace("description", "descr").replace("[app]", "[app, db]") + "prun: true\n"
    a_directory(tmp_path, stack=stack, groups="groups:\n  base: maybe\n  wbe: on\n")
    mistakes = await mistakes_of(tmp_path)
    assert [line.split(": ")[0] for line in mistakes] == [
        "stack.yaml:9:5", "stack.yaml:10:21", "stack.yaml:13:1",
        "groups.yaml:1:1", "groups.yaml:2:9", "groups.yaml:3:3",
    ]  # fmt: skip


async def test_broken_file_hides_no_mistake_of_the_other(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK + "prun: true\n", groups="groups: {base: on")
    mistakes = await mistakes_of(tmp_path)
    assert [line.split(": ")[0] for line in mistakes] == ["stack.yaml:13:1", "groups.yaml:1:18"]


@pytest.mark.parametrize("compose", ["[]", "[nope.yaml]", "[compose.yaml, nope.yaml]"])
async def test_compose_files_are_named_and_exist(tmp_path: Path, compose: str) -> None:
    a_directory(tmp_path, stack=STACK.replace("[compose.yaml]", compose))
    (mistake,) = await mistakes_of(tmp_path)
    assert mistake.startswith("stack.yaml:2:")


async def test_mistakes_of_compose_are_added(tmp_path: Path) -> None:
    a_directory(tmp_path, compose="nothing: here\n", groups=GROUPS.replace("off", "of"))
    mistakes = await mistakes_of(tmp_path)
    assert [line.split(": ")[0] for line in mistakes] == ["groups.yaml:4:8", "compose.yaml"]


async def test_alternatives_are_in_different_groups(tmp_path: Path) -> None:
    compose = (
        "services:\n"
        "  db: {image: x, container_name: one, profiles: [a]}\n"
        "  cache: {image: x, container_name: one, profiles: [b]}\n"
        "  app: {image: x}\n"
    )
    a_directory(tmp_path, compose=compose)
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:6:20: cache and db have the same container_name one, so they are alternatives: "
        "put them into different groups"
    ]


async def test_kinds_of_services_are_checked(tmp_path: Path) -> None:
    a_directory(tmp_path, stack=STACK + "services: {db: {kind: job}, ap: {kind: job}}\n")
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:13:29: unknown service 'ap'; did you mean 'app'? (no Compose file has it)"
    ]
    compose = COMPOSE.replace("[db]}", "{db: {condition: service_completed_successfully}}}")
    a_directory(tmp_path, stack=STACK + "services: {db: {kind: service}}\n", compose=compose)
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:13:23: app waits for db to complete, which kind: service rules out"
    ]
    a_directory(tmp_path, stack=STACK + "services: {db: {kind: task}, app: {}}\n")
    assert await mistakes_of(tmp_path) == [
        'stack.yaml:13:23: services.db.kind: expected job or service, found "task"',
        "stack.yaml:13:30: services.app.kind is missing",
    ]
