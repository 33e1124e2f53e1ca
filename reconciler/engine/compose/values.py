"""Reads values of variables as Compose sees them; only Compose knows where it looks for them.

The resolved model contains the name of the variable of a config or secret, not its value. A service that
passes the same variable on has the value in its environment, which Compose prints. The query contains names
only, and the result comes over a pipe, so no value appears in the arguments of a process.

An included file may have env files of its own, in which Compose looks for the variables of its declarations.
So the query has the same includes, each with a generated file in place of the included one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.errors import InvalidDesiredState
from reconciler.host.yaml_positions import parse_document
from reconciler.model.json_text import load_json
from reconciler.model.start_work import CONFIG, SECRET, unescaped, value_key

_SERVICE = "values"
_MOST_FILES = 100


class VariableQuery:
    """Compose files that query ``variables``: those of each config and secret, by ``value_key``.

    ``files`` are the project's Compose files, ``directory`` its directory. Reads them.
    """

    def __init__(self, variables: Mapping[str, str], files: Sequence[Path], directory: Path) -> None:
        self._variables = variables
        self._queries: list[dict[str, Any]] = []
        self._owner: dict[str, int] = {}
        self._add(files, directory)
        self._owner = {key: self._owner.get(key, 0) for key in variables}
        for number, query in enumerate(self._queries):
            names = sorted({variables[key] for key, owner in self._owner.items() if owner == number})
            # As a list: only that form is resolved from the env files of an include.
            service = {"image": _SERVICE, "environment": names}
            query["services"] = {f"{_SERVICE}{number}": service}

    @property
    def is_simple(self) -> bool:
        """Whether everything is declared in the project's own files, so that includes do not matter."""
        return not any(self._owner.values())

    def write(self, folder: Path) -> bytes:
        """Return the file for ``config --format json``; writes the files that it includes into ``folder``."""
        if self.is_simple:
            return json.dumps({"services": self._queries[0]["services"]}).encode()
        texts = [json.dumps(_placed(query, folder)).encode() for query in self._queries]
        for number, text in enumerate(texts[1:], 1):
            _place(folder, number).write_bytes(text)
        return texts[0]

    def parse(self, output: bytes) -> dict[str, str | None]:
        """Return the value for each key; None for a variable that is not set."""
        services = load_json(output)["services"]
        environments = [
            (services.get(f"{_SERVICE}{n}") or {}).get("environment") or {} for n in range(len(self._queries))
        ]
        found = {key: environments[owner].get(self._variables[key]) for key, owner in self._owner.items()}
        return {key: None if value is None else unescaped(value) for key, value in found.items()}

    def _add(self, files: Sequence[Path], directory: Path) -> int:
        number = len(self._queries)
        includes: list[dict[str, Any]] = []
        self._queries.append({"include": includes})
        models = [_parsed(file) for file in files]
        for key in (key for model in models for key in _declared(model) if key in self._variables):
            # The including file comes first, as it does if both declare the same name.
            self._owner.setdefault(key, number)
        for entry in (entry for model in models for entry in _listed(model.get("include"))):
            include = entry if isinstance(entry, dict) else {"path": entry}
            paths = [
                path for path in _listed(include.get("path")) if isinstance(path, str) and "$" not in path
            ]
            if not paths or len(self._queries) >= _MOST_FILES:
                continue
            base = directory / (include.get("project_directory") or Path(paths[0]).parent)
            included = self._add([directory / path for path in paths], base)
            more = {"env_file": include["env_file"]} if include.get("env_file") else {}
            includes.append({"path": included, "project_directory": str(base), **more})
        return number


def _placed(query: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    includes = [{**entry, "path": str(_place(folder, entry["path"]))} for entry in query["include"]]
    return {**query, "include": includes} if includes else {"services": query["services"]}


def _place(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


def _parsed(file: Path) -> Mapping[str, Any]:
    try:
        model = parse_document("", file.read_bytes(), lenient=True).plain
    except (OSError, InvalidDesiredState):
        return {}
    return model if isinstance(model, dict) else {}


def _declared(model: Mapping[str, Any]) -> Iterator[str]:
    for kind in (CONFIG, SECRET):
        entries = model.get(f"{kind}s")
        yield from (value_key(kind, name) for name in (entries if isinstance(entries, dict) else ()))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
