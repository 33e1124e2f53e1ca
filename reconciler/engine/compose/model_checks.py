"""Checks of the resolved model that Compose makes only when it creates a container. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")


class ModelMistake(NamedTuple):
    """A mistake at a path of keys of the model."""

    keys: tuple[str, ...]
    message: str


def model_mistakes(model: Mapping[str, Any]) -> Iterator[ModelMistake]:
    """Yield mistakes in a model of Compose."""
    for name, entry in (model.get("services") or {}).items():
        restart = (entry or {}).get("restart")
        if restart and not _RESTART.fullmatch(str(restart)):
            yield ModelMistake(
                ("services", name, "restart"),
                f"services.{name}.restart is {str(restart)!r}: expected no, always, unless-stopped, "
                "on-failure or on-failure:NUMBER",
            )
