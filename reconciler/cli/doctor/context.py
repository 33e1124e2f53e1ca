"""The input of the checks of ``doctor``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.desired_state.store import LoadedState
from reconciler.engine import registry
from reconciler.errors import ServiceManagerError
from reconciler.model.observed import EngineInfo
from reconciler.options import ENGINES

_ENGINE_TIMEOUT = 5.0
"""Seconds to wait for the engine."""


@dataclass(frozen=True)
class CheckContext:
    """The machine to check, with an engine of the given ``kind``. Tests pass paths of their own."""

    desired_state: Path
    state_dir: Path
    compose_files: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    kind: str = ENGINES[0]

    @cached_property
    def engine(self) -> EngineInfo | ServiceManagerError:
        """Information about the engine, or the error of the request."""
        try:
            return asyncio.run(_engine_info(self.kind, self.environ))
        except ServiceManagerError as error:
            return error

    @cached_property
    def loaded(self) -> LoadedState | ServiceManagerError:
        """The desired state, or the error of loading it."""
        from reconciler.cli.oneshot import load

        try:
            return asyncio.run(load(self.desired_state, self.compose_files))
        except ServiceManagerError as error:
            return error

    def text(self, path: str) -> str:
        """Return the content of a file of the host; empty if it can't be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return ""


async def _engine_info(kind: str, environ: Mapping[str, str]) -> EngineInfo:
    with TemporaryDirectory(prefix="service-manager-") as folder:
        engine = registry.kind(kind).create(Path(folder), environ, patience=_ENGINE_TIMEOUT)
        try:
            return await engine.info()
        finally:
            await engine.close()
