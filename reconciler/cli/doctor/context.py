"""The input and the result of the checks of ``doctor``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from reconciler.desired_state.store import LoadedState
from reconciler.engine.docker.address import Address, find_address
from reconciler.errors import ServiceManagerError
from reconciler.model.observed import EngineInfo

OK, WARN, PROBLEM = "ok", "warn", "problem"
_PATIENCE = 5.0
"""Seconds to wait for the engine."""


class Check(NamedTuple):
    """One finding. ``state`` is ok, warn or problem; ``remedy`` what to do, empty where all is well."""

    name: str
    state: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class CheckContext:
    """The machine to check. Paths are parameters so that tests can pass their own."""

    desired_state: Path
    state_dir: Path
    compose_files: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")

    @cached_property
    def address(self) -> Address:
        """Where the engine is."""
        return find_address(self.environ)

    @cached_property
    def engine(self) -> EngineInfo | ServiceManagerError:
        """Information about the engine, or the error of the request."""
        try:
            return asyncio.run(_ask(self.environ))
        except ServiceManagerError as error:
            return error

    @cached_property
    def loaded(self) -> LoadedState | ServiceManagerError:
        """The desired state, or what is wrong with it."""
        from reconciler.cli.oneshot import load

        try:
            return asyncio.run(load(self.desired_state, self.compose_files))
        except ServiceManagerError as error:
            return error

    def text(self, path: str) -> str:
        """The content of a file of the host; empty if it can't be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return ""


async def _ask(environ: Mapping[str, str]) -> EngineInfo:
    from reconciler.engine.docker.engine import DockerEngine

    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = DockerEngine(Path(folder), environ=environ, patience=_PATIENCE)
        try:
            return await engine.info()
        finally:
            await engine.close()
