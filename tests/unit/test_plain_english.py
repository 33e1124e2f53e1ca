"""Comments, messages and documents stay in plain English, in every path and in every package."""

from __future__ import annotations

import pytest

from tests.support.plain_english import PATHS, ROOT, count

GOAL = 1.0
"""Phrases per 1,000 words that a path may have."""

PARENTS = ("reconciler", "api", "tests", "tests/unit")
"""Folders whose packages are also counted one by one, so that no package hides behind the average."""

PACKAGES = sorted(
    str(file.parent.relative_to(ROOT)) for parent in PARENTS for file in (ROOT / parent).glob("*/__init__.py")
)


@pytest.mark.parametrize("path", [*(path for path in PATHS if (ROOT / path).exists()), *PACKAGES])
def test_path_has_few_phrases_of_the_list(path: str) -> None:
    counted = count(path)
    assert counted.rate <= GOAL, "\n".join(
        f"{hit.path}:{hit.line}: {', '.join(hit.phrases)}" for hit in counted.hits[-50:]
    )
