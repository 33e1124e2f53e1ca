"""Values of variables as Compose itself sees them: asked of it, since only it knows where it looks. Pure.

The resolved model names the variable of a config or secret and leaves its value out. A service that passes
the same variables on has their values in its environment, which Compose writes out. The question holds names
alone, and the answer comes over a pipe, so that no value shows among the arguments of a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from reconciler.start_work import unescaped
from reconciler.untrusted import load_json

_ASKER = "values"


def asking_for(variables: Iterable[str]) -> bytes:
    """A Compose file for ``config --format json`` whose answer holds these variables."""
    environment = dict.fromkeys(sorted(set(variables)))
    return json.dumps({"services": {_ASKER: {"image": _ASKER, "environment": environment}}}).encode()


def answered(variables: Mapping[str, str], output: bytes) -> dict[str, str | None]:
    """The value behind each key of ``variables`` (key to variable); None for a variable that is not set."""
    told = load_json(output)["services"][_ASKER].get("environment") or {}
    values = {name: None if value is None else unescaped(value) for name, value in told.items()}
    return {key: values.get(variable) for key, variable in variables.items()}
