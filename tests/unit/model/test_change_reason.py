"""Reasons of generations: text and value."""

from __future__ import annotations

import pytest

from reconciler.model.change_reason import COMMIT, EDITED, ROLLBACK, ChangeReason


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (EDITED, "edited"),
        (ChangeReason("start", "web"), "start web"),
        (ChangeReason("start", "web, db"), "start web, db"),
        (ChangeReason(ROLLBACK, "41"), "rollback 41"),
        (ChangeReason(COMMIT, "3f9c2ab"), "commit 3f9c2ab"),
        (ChangeReason(""), ""),
    ],
)
def test_text_is_restored_to_the_same_reason(reason: ChangeReason, text: str) -> None:
    assert str(reason) == text
    assert ChangeReason.parse(text) == reason


def test_a_group_called_edited_is_no_edit_by_hand() -> None:
    reason = ChangeReason.parse("start edited")
    assert reason.target == "edited"
    assert not reason.from_files
    assert reason != EDITED


def test_edits_by_hand_and_commits_come_with_the_files() -> None:
    assert EDITED.from_files
    assert ChangeReason(COMMIT, "3f9c2ab").from_files
    assert not ChangeReason(ROLLBACK, "3f9c2ab").from_files
