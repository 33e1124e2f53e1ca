"""List the files that Compose reads for a project, without running Compose.

The list may hold too many files: a change of a file that is not in it is noticed only when another file
changes. Only names are read from the files; Compose interprets everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reconciler.errors import InvalidDesiredState
from reconciler.host.compose_paths import working_directory
from reconciler.host.content_digest import digest
from reconciler.host.yaml_positions import parse_document

Read = Callable[[Path], bytes | None]
"""Return the content of a file; None if it is missing."""

_MAX_FILES = 500
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:?[-?+])([^}]*))?\}|(\w+))")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.]*)\s*=\s*(.*?)\s*")


class _Part(NamedTuple):
    file: Path
    base: Path
    variables: Mapping[str, str]


def compose_input_files(
    read: Read, files: Sequence[Path], environment: Mapping[str, str]
) -> tuple[Path, ...]:
    """Return every file that resolving ``files`` depends on, ``files`` first; some may not exist.

    ``environment`` is the environment of the Compose process; it overrides the project's ``.env``, as in
    Compose. PWD is the folder of the first file.
    """
    if not files:
        return ()
    return tuple(_InputSearch(read, {**environment, "PWD": working_directory(files[0].parent)}).search(files))


class _Named(NamedTuple):
    """The file names in a Compose file, before interpolation."""

    includes: tuple[Any, ...] = ()
    files: tuple[Any, ...] = ()
    extended: tuple[Any, ...] = ()


class _InputSearch:
    def __init__(self, read: Read, environment: Mapping[str, str]) -> None:
        self._read = read
        self._environment = environment
        self._found: dict[Path, None] = {}
        self._waiting: list[_Part] = []

    def search(self, files: Sequence[Path]) -> Iterable[Path]:
        base = files[0].parent
        self._found |= dict.fromkeys(files)
        variables = self._variables([base / ".env"], {})
        self._waiting = [_Part(file, base, variables) for file in files]
        seen: set[tuple[Path, Path]] = set()
        while self._waiting and len(self._found) < _MAX_FILES:
            part = self._waiting.pop(0)
            if (part.file, part.base) not in seen:
                seen.add((part.file, part.base))
                self._scan(part)
        return self._found

    def _scan(self, part: _Part) -> None:
        content = self._read(part.file)
        named = _names_in(content) if content is not None else _Named()
        for entry in named.includes:
            self._include(part, entry)
        for value in named.files:
            self._found |= dict.fromkeys(_paths(part, value))
        for value in named.extended:
            self._follow(_paths(part, value), None, part.variables)

    def _include(self, part: _Part, entry: Any) -> None:
        if not isinstance(entry, dict):
            entry = {"path": entry}
        files = list(_paths(part, entry.get("path")))
        if not files:
            return
        base = next(_paths(part, entry.get("project_directory")), files[0].parent)
        settings = list(_paths(part, entry.get("env_file"))) or [base / ".env"]
        self._follow(files, base, self._variables(settings, part.variables))

    def _follow(self, files: Iterable[Path], base: Path | None, variables: Mapping[str, str]) -> None:
        for file in files:
            self._found[file] = None
            self._waiting.append(_Part(file, base or file.parent, variables))

    def _variables(self, files: Sequence[Path], inherited: Mapping[str, str]) -> dict[str, str]:
        found = dict(inherited)
        for file in files:
            self._found[file] = None
            found |= assignments(self._read(file) or b"")
        return found | dict(self._environment)


_cache: dict[str, _Named] = {}


def _names_in(content: bytes) -> _Named:
    # Cached, since every scan reads the same files, and parsing is its slowest part. Caches only the names:
    # a whole parsed file of 18 services takes 300 kB.
    key = digest(content)
    named = _cache.pop(key, None) or _parse_names(content)
    _cache[key] = named
    if len(_cache) > _MAX_FILES:
        _cache.pop(next(iter(_cache)), None)
    return named


def _parse_names(content: bytes) -> _Named:
    try:
        model = parse_document("", content, lenient=True).plain
    except InvalidDesiredState:
        # Compose reports the error in more detail.
        return _Named()
    if not isinstance(model, dict):
        return _Named()
    services = _values(model.get("services"))
    files = [service.get(key) for service in services for key in ("env_file", "label_file")]
    extended = [e.get("file") for service in services if isinstance(e := service.get("extends"), dict)]
    return _Named(
        tuple(_listed(model.get("include"))), tuple(filter(None, files)), tuple(filter(None, extended))
    )


def assignments(content: bytes) -> dict[str, str]:
    """Return the variables that an env file sets, not interpolated."""
    lines = content.decode(errors="replace").replace("\r", "").split("\n")
    matches = (_ASSIGNMENT.fullmatch(line) for line in lines if not line.lstrip().startswith("#"))
    return {match[1]: _unquoted(match[2]) for match in matches if match}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


def _paths(part: _Part, value: Any) -> Iterator[Path]:
    for entry in _listed(value):
        name = entry.get("path") if isinstance(entry, dict) else entry
        if isinstance(name, str) and name and "://" not in name and not name.startswith("git@"):
            yield _absolute(part.base, _interpolated(name, part.variables))


def _absolute(base: Path, name: str) -> Path:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        path = Path(name)
    return base / path


def _interpolated(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, other = match[1] or match[4], match[2] or "", match[3] or ""
        if name is None:
            return "$"
        known = variables.get(name)
        given = bool(known) if operator.startswith(":") else known is not None
        if operator.endswith("-"):
            return known or "" if given else other
        if operator.endswith("+"):
            return other if given else ""
        return known or ""

    return _VARIABLE.sub(value, text)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _values(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value.values() if isinstance(entry, dict)] if isinstance(value, dict) else []
