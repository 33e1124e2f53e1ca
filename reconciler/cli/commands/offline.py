"""``validate``, ``init``, ``schema`` and ``version``: commands that need neither daemon nor engine."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

from reconciler import __version__
from reconciler.cli.console import Console, clean
from reconciler.cli.options.option_types import nearest_state_dir, path
from reconciler.cli.options.parsing import UsageError, closest
from reconciler.cli.options.spec import OptionValues
from reconciler.errors import InvalidDesiredState, ServiceManagerError


def validate(values: OptionValues, console: Console) -> int:
    """Print every mistake of a desired-state directory; exit code 1 if there is one."""
    from reconciler.cli.oneshot import load, project_rename_warnings, relative_to_cwd

    directory = values["desired_state"] if values["dir"] is None else _directory(values["dir"])
    as_json = values["output"] == "json"
    try:
        loaded = asyncio.run(load(directory, values["compose_file"]))
    except InvalidDesiredState as error:
        mistakes = [relative_to_cwd(mistake, directory) for mistake in error.mistakes]
        if as_json:
            console.json(
                {"valid": False, "errors": [mistake._asdict() for mistake in mistakes], "warnings": []}
            )
            return 1
        for mistake in mistakes:
            console.error(clean(mistake))
        count = len(mistakes)
        console.error(f"{directory} is not valid: {count} mistake{'' if count == 1 else 's'}")
        return 1
    except ServiceManagerError as error:
        if as_json:
            console.json(
                {
                    "valid": False,
                    "errors": [{"path": "", "line": 0, "column": 0, "message": str(error)}],
                    "warnings": [],
                }
            )
            return 1
        raise
    stack = loaded.stack
    warnings = (*stack.warnings, *asyncio.run(project_rename_warnings(loaded, nearest_state_dir())))
    if as_json:
        console.json({"valid": True, "errors": [], "warnings": list(warnings)})
        return 0
    for warning in warnings:
        console.error(f"warning: {clean(warning)}")
    on = sum(state.on for state in loaded.desired.groups.values())
    console.print(
        f"{directory} is valid: {len(stack.groups)} groups ({on} on), {len(stack.group_of)} services"
        + (f", {len(stack.unmanaged)} unmanaged" if stack.unmanaged else "")
    )
    return 0


def _directory(text: str) -> Path:
    try:
        return path(text)
    except ValueError as error:
        raise UsageError(f"DIR: {error}") from None


def init(values: OptionValues, console: Console) -> int:
    """Write a first desired-state directory."""
    from reconciler.cli.init.init import scaffold

    try:
        file = path(values["compose_file"])
    except ValueError as error:
        raise UsageError(f"COMPOSE_FILE: {error}") from None
    result = asyncio.run(scaffold(file, values["desired_state"], force=values["force"]))
    for note in result.notes:
        console.error(f"note: {clean(note)}")
    for written in result.written:
        console.print(f"wrote {written}")
    console.print(f"{result.groups} groups, {result.services} services. Review stack.yaml, then run:")
    console.print(f"  service-manager plan --desired-state {values['desired_state']}")
    console.print(f"  service-manager run --desired-state {values['desired_state']}")
    return 0


def schema(values: OptionValues, console: Console) -> int:
    """Print the JSON Schema of the files."""
    from reconciler.desired_state.schema import json_schema

    schemas = json_schema()
    name = values["file"]
    if name is None:
        console.json(schemas)
        return 0
    key = f"{name.removesuffix('.yaml')}.yaml"
    if key not in schemas:
        words = [known.removesuffix(".yaml") for known in schemas]
        raise UsageError(
            f"there is no schema {name!r}", closest(name, words) or f"the schemas are {' and '.join(words)}"
        )
    console.json(schemas[key])
    return 0


def version(values: OptionValues, console: Console) -> int:
    """Print the version."""
    if values["output"] == "json":
        console.json(
            {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}
        )
    else:
        console.print(f"service-manager {__version__}")
    return 0
