"""``validate``, ``init``, ``schema`` and ``version``: commands that need neither daemon nor engine."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

from reconciler import __version__
from reconciler.cli.console import Console, clean
from reconciler.cli.options.option_types import nearest_state_dir
from reconciler.errors import InvalidDesiredState, ServiceManagerError


def validate(
    console: Console,
    *,
    dir: Path | None,
    desired_state: Path,
    compose_file: tuple[Path, ...],
    output: str,
) -> int:
    """Print every mistake of a desired-state directory; exit code 1 if there is one."""
    from reconciler.cli.oneshot import load, project_rename_warnings, relative_to_cwd
    from reconciler.host.lfs_pointers import pointer_warnings

    directory = dir or desired_state
    as_json = output == "json"
    try:
        loaded = asyncio.run(load(directory, compose_file))
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
    warnings = (
        *stack.warnings,
        *pointer_warnings(stack.services.values()),
        *asyncio.run(project_rename_warnings(loaded, nearest_state_dir())),
    )
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


def init(console: Console, *, compose_file: Path, desired_state: Path, engine: str, force: bool) -> int:
    """Write a first desired-state directory."""
    from reconciler.cli.init.init import scaffold

    result = asyncio.run(scaffold(compose_file, desired_state, force=force, engine=engine))
    for note in result.notes:
        console.error(f"note: {clean(note)}")
    for written in result.written:
        console.print(f"wrote {written}")
    console.print(f"{result.groups} groups, {result.services} services. Review stack.yaml, then run:")
    console.print(f"  service-manager plan --desired-state {desired_state}")
    console.print(f"  service-manager run --desired-state {desired_state}")
    return 0


def schema(console: Console, *, file: str | None) -> int:
    """Print the JSON Schema of the files."""
    from reconciler.desired_state.schema import json_schema

    schemas = json_schema()
    console.json(schemas if file is None else schemas[f"{file.removesuffix('.yaml')}.yaml"])
    return 0


def version(console: Console, *, output: str) -> int:
    """Print the version."""
    if output == "json":
        console.json(
            {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}
        )
    else:
        console.print(f"service-manager {__version__}")
    return 0
