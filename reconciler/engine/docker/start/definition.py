"""Reads the definition that a container was created from: files, hooks and their values.

A container that Compose created from a stored model has that model's path in a label, so it gets the files
and hooks of its own generation, even while a newer one waits to be accepted. Any other container gets those
of the current stack. Blocking: reads files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.engine.compose.engine import secrets_in
from reconciler.errors import StepFailed
from reconciler.host.untrusted import MALFORMED
from reconciler.model.json_text import load_json
from reconciler.model.secret_values import POINTER, decode_values
from reconciler.model.stack import Stack
from reconciler.model.start_work import NOTHING, InjectedFile, StartWork, start_work, unescaped


class Definition(NamedTuple):
    """``work`` of one service; ``values`` by ``InjectedFile.key``; messages must not contain ``secrets``."""

    work: StartWork
    values: Mapping[str, str | None] = {}
    secrets: tuple[str, ...] = ()

    def content(self, file: InjectedFile) -> str:
        """Return the content of the file; empty: Compose creates no file then.

        Raises:
            StepFailed: the variable is not set, or its value was not kept.
        """
        if not file.variable:
            return file.content
        if file.key not in self.values:
            message = f"the value of {file.key} was not kept with this generation; save one of its files"
            raise StepFailed(message, "value_missing")
        value = self.values[file.key]
        if value is None:
            raise StepFailed(
                f"the variable {file.variable}, which {file.key} is taken from, is not set", "value_missing"
            )
        return value


def definition_of(stack: Stack, service: str, made_from: str = "") -> Definition:
    """Return the definition of a container of ``service``; ``made_from`` is the model named by its label.

    Raises:
        StepFailed: the model or its values can't be read.
    """
    if not stack.model:
        known = stack.services.get(service)
        return Definition(known.start if known else NOTHING)
    frozen = Path(stack.model).parent
    own = made_from if made_from and Path(made_from).parent == frozen and Path(made_from).exists() else ""
    model, values = _read(own or stack.model)
    entry = (model.get("services") or {}).get(service) or {}
    work = start_work(entry, model)
    return Definition(work, values, tuple(_secrets(entry, work, values)) if work != NOTHING else ())


@lru_cache(maxsize=4)
def _read(path: str) -> tuple[Mapping[str, Any], Mapping[str, str | None]]:
    try:
        model = load_json(Path(path).read_bytes())
        place = model.get(POINTER)
        values = decode_values((Path(path).parent / place).read_bytes()) if place else {}
    except (OSError, *MALFORMED) as error:
        message = f"the resolved Compose model {path} can't be read: {error}"
        raise StepFailed(message, "model_missing") from error
    return model, values


def _secrets(entry: Mapping[str, Any], work: StartWork, values: Mapping[str, str | None]) -> Iterator[str]:
    yield from (value for value in values.values() if value)
    yield from (line for value in values.values() if value for line in value.splitlines() if line.strip())
    hooks = (*work.pre_start, *work.post_start, *work.pre_stop)
    environments = [entry, *({"environment": hook.environment} for hook in hooks)]
    yield from map(unescaped, secrets_in({str(index): one for index, one in enumerate(environments)}))
