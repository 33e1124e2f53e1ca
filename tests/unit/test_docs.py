"""The reference pages name everything that the code accepts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"


def _schemas() -> dict[str, Any]:
    command = [sys.executable, "-m", "reconciler", "schema"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _keys(part)


@pytest.mark.parametrize("file", ["stack.yaml", "groups.yaml"])
def test_files_page_documents_every_key(file: str) -> None:
    page = PAGE.read_text().partition(f"## {file}")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert set(_keys(_schemas()[file])) - {"groups"} <= documented


def test_files_page_documents_no_key_that_is_refused() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    schemas = _schemas()
    assert documented <= {key for schema in schemas.values() for key in _keys(schema)}
