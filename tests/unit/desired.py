"""A small desired-state directory for tests of the store, with a resolver that needs no Compose."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.positions import parse
from reconciler.resolved import Resolved
from reconciler.store import Store

STACK = """\
name: demo
compose: [compose.yaml]
pilot: {groups: [base], memory: 500MB}
groups:
  base:
    services: [db, cache]
    memory: 700MB
  web:
    description: What people see
    services: [app]
    memory: 200MB
    depends_on: {base: on}
"""
GROUPS = """\
# what is on
groups:
  base: on      # always
  web: off
"""
COMPOSE = """\
services:
  db: {image: "db:1", env_file: [db.env]}
  cache: {image: "cache:1"}
  app: {image: "app:1", depends_on: [db]}
"""


def a_directory(path: Path, **files: str) -> Path:
    """``stack``, ``groups`` and ``compose`` replace those contents; the rest are further files."""
    contents = {"stack": STACK, "groups": GROUPS, "compose": COMPOSE} | files
    path.mkdir(parents=True, exist_ok=True)
    for name in ("stack", "groups", "compose"):
        (path / f"{name}.yaml").write_text(contents[name])
    (path / "db.env").write_text("PASSWORD=secret\n")
    return path


class Resolving:
    """Stands in for Compose: reads the files as they are on the disk at the moment, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, files: Sequence[Path], directory: Path, project: str) -> Resolved:
        self.calls += 1
        await asyncio.sleep(0)
        services: dict[str, Any] = {}
        for file in files:
            try:
                services |= parse(file.name, file.read_bytes(), lenient=True).plain["services"]
            except (OSError, KeyError, TypeError) as error:
                raise InvalidDesiredState((Mistake(str(file), 0, 0, f"compose says no: {error}"),)) from None
        for entry in services.values():
            names = entry.pop("env_file", [])
            entry["environment"] = {name: (directory / name).read_text() for name in names}
        text = json.dumps({"name": project, "services": services}).encode()
        hashes = {n: hashlib.sha256(json.dumps(e).encode()).hexdigest() for n, e in services.items()}
        return Resolved(text, hashes, "2.0")


def a_store(directory: Path, **more: Any) -> Store:
    return Store(directory, Resolving(), **more)


async def mistakes_of(directory: Path) -> list[str]:
    """What loading the directory complains of, [] if it is valid."""
    try:
        await a_store(directory).load()
    except InvalidDesiredState as error:
        return [str(mistake) for mistake in error.mistakes]
    return []
