"""Names of groups that can be addressed, and those that can't."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired_state.schema import name_problem, usable_name
from tests.support.fixtures.desired_state import GROUPS, STACK, a_directory, mistakes_of


@pytest.mark.parametrize(
    "name", ["core", "2024", "no", "Küche & Bad", "Tools/Extra 1", "a.b", "...", "a?b#c%"]
)
def test_names_that_can_be_addressed(name: str) -> None:
    assert name_problem(name) == ""
    assert usable_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", " x", "/", "/x", "x/", "a//b", ".", "..", "a/../b", "a\nb", "\x1b[1m"]
)
def test_names_that_can_not_be_addressed(name: str) -> None:
    assert name_problem(name)


@given(st.text())
def test_a_usable_name_has_no_problem(text: str) -> None:
    name = usable_name(text)
    assert name_problem(name) == ""
    assert usable_name(name) == name


async def test_validate_names_the_line(tmp_path: Path) -> None:
    stack = STACK.replace("  web:\n", '  "a/..":\n')
    a_directory(tmp_path, stack=stack, groups=GROUPS.replace("  web:", '  "a/..":'))
    assert await mistakes_of(tmp_path) == [
        "stack.yaml:8:3: the group name 'a/..' has the path segment '..', so nothing could address the group"
    ]
