"""Rules of the test suite: no test is skipped, and every folder of tests has a target in the Makefile."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SKIPS = {"skip", "skipif", "importorskip", "skipTest", "skipIf", "skipUnless"}


def _skips(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in SKIPS:
            yield node.lineno


def test_no_test_is_skipped_because_a_part_is_missing() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in _skips(path.read_text())
    ]
    assert not found


def test_every_folder_of_tests_has_a_make_target() -> None:
    makefile = (TESTS.parent / "Makefile").read_text()
    folders = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert not [folder for folder in folders if f"\n{folder}:" not in makefile]
