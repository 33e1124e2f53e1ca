"""The names that may be pushed, and the lines of .gitattributes that are refused."""

from __future__ import annotations

import pytest

from reconciler.git.attributes import encoded_lines
from reconciler.git.refs import refusal


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main",
        "refs/heads/feature/-x",
        "refs/heads/AHEAD-of-time",
        "refs/tags/v1",
        "refs/tags/20261128",
        "refs/heads/ümlaut",
    ],
)
def test_valid_ref_names_are_accepted(ref: str) -> None:
    assert not refusal(ref, "refs/heads/main")


@pytest.mark.parametrize(
    "ref",
    [
        "HEAD",
        "refs/stash",
        "refs/replace/0123",
        "refs/remotes/origin/main",
        "refs/heads/-x",
        "refs/tags/--all",
        "refs/heads/HEAD",
        "refs/tags/FETCH_HEAD",
        "refs/heads/" + "a" * 40,
        "refs/heads/refs/heads/main",
        "refs/tags/main",
        "refs/heads/a\u202eb",
        "refs/heads/\udcff",
    ],
)
def test_invalid_ref_names_are_refused(ref: str) -> None:
    reason = refusal(ref, "refs/heads/main")
    assert reason
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("groups.yaml working-tree-encoding=UTF-16LE", (13, "UTF-16LE")),
        ("\t*.yaml  text  working-tree-encoding=UTF-16", (16, "UTF-16")),
        ("* working-tree-encoding\r", (3, "")),
        ("[attr]wide working-tree-encoding=UTF-16", (12, "UTF-16")),
        ('"a \\" b" working-tree-encoding=UTF-16', (10, "UTF-16")),
        ('"a working-tree-encoding=x b" text', None),
        ("working-tree-encoding=x text", None),
        ("# * working-tree-encoding=UTF-16", None),
        ("* -working-tree-encoding", None),
        ("* !working-tree-encoding eol=lf", None),
        ("", None),
    ],
)
def test_attribute_lines_that_set_an_encoding_are_found(line: str, found: tuple[int, str] | None) -> None:
    lines = list(encoded_lines(f"* text\n{line}\n".encode()))
    assert lines == ([(2, *found)] if found else [])
