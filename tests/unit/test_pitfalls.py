"""Everything that is known to go wrong on such a box has a test that shows that it does not, or a reason."""

from __future__ import annotations

from tests.pitfalls import IMPOSSIBLE, ROWS, shown, table


def test_every_row_has_a_test_or_a_reason() -> None:
    assert {*shown(), *IMPOSSIBLE} == {*ROWS} == {*range(1, 44)}
    assert not shown().keys() & IMPOSSIBLE.keys()


def test_the_table_names_file_and_test() -> None:
    name = "test_an_image_store_that_shows_another_id_for_the_same_image"
    assert f"tests/unit/planning/test_plan.py::{name}" in table()
