"""Which files ``docker compose`` itself reads in a folder, and how ``stack.yaml`` differs from that. Pure.

Without ``-f``, Compose reads the files of COMPOSE_FILE, else the first of its default names and the first
override file beside it. A stack that lists other files is recreated by each ``docker compose up`` of a person
and again by the daemon, so every difference is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from reconciler.host.compose_paths import working_directory

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""Compose's default file names, in its order of preference (2.40.3)."""
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
"""Compose's names of override files, in its order of preference (2.40.3)."""

FILE, SEPARATOR, PROFILES, ENV_FILES = (
    "COMPOSE_FILE",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
)


class Selection(NamedTuple):
    """The files that Compose reads without ``-f``. ``variable``: COMPOSE_FILE names them."""

    files: tuple[Path, ...]
    variable: bool = False


def selection(folder: Path, variables: Mapping[str, str], exists: Callable[[Path], bool]) -> Selection:
    """Return what Compose reads in ``folder``, with the COMPOSE variables of ``.env`` and of the shell."""
    named = variables.get(FILE, "")
    # A file from a repository or a registry is no file of this machine.
    if named and "://" not in named and "git@" not in named:
        parts = (part.strip() for part in named.split(variables.get(SEPARATOR) or ":"))
        files = tuple(Path(working_directory(folder / part)) for part in parts if part)
        return Selection(files, variable=True)
    default = _first(folder, DEFAULT_FILES, exists)
    override = _first(folder, OVERRIDE_FILES, exists) if default else ()
    return Selection((*default, *override))


def with_selection(file: Path, chosen: Selection) -> tuple[Path, ...]:
    """Return the files of a project, given one of them: all that Compose reads with it, in its order."""
    names = {working_directory(path) for path in chosen.files}
    return chosen.files if working_directory(file) in names else (file,)


def possible_overrides(listed: Sequence[Path]) -> tuple[Path, ...]:
    """Return the override files that Compose would read beside these; they may not exist."""
    if not listed or listed[0].name not in DEFAULT_FILES:
        return ()
    return tuple(path for name in OVERRIDE_FILES if (path := listed[0].parent / name) not in listed)


def selection_warnings(
    listed: Sequence[Path], variables: Mapping[str, str], exists: Callable[[Path], bool]
) -> tuple[str, ...]:
    """Return how the files that ``stack.yaml`` lists differ from those that Compose reads in their folder.

    ``variables`` are those of the folder's ``.env``. Without COMPOSE_FILE nothing is said about a project
    whose first file has a name of its own: a person gives it with ``-f``.
    """
    if not listed:
        return ()
    folder = listed[0].parent
    chosen = selection(folder, variables, exists)
    ours = [working_directory(path) for path in listed]
    theirs = [working_directory(path) for path in chosen.files]
    if ours == theirs or not theirs:
        return _unused(variables)
    where = working_directory(folder)
    if chosen.variable:
        names = ", ".join(_name(path, where) for path in theirs)
        what = f"{FILE} in {where}/.env names {names}"
    elif theirs[0] == ours[0] and (added := [path for path in theirs if path not in ours]):
        what = f"{added[0]} is an override file"
    else:
        return _unused(variables)
    return (
        f"{what}, but `compose:` in stack.yaml lists {', '.join(_name(path, where) for path in ours)}: each "
        "`docker compose up` there and this daemon undo what the other one does; list the same files in both",
        *_unused(variables),
    )


def _unused(variables: Mapping[str, str]) -> tuple[str, ...]:
    if not variables.get(ENV_FILES):
        return ()
    return (
        f"{ENV_FILES} in .env has no effect, as in Compose, which takes it from the shell only; put the "
        "variables into .env",
    )


def _first(folder: Path, names: Sequence[str], exists: Callable[[Path], bool]) -> tuple[Path, ...]:
    return next(((folder / name,) for name in names if exists(folder / name)), ())


def _name(path: str, folder: str) -> str:
    return path.removeprefix(f"{folder}/")
