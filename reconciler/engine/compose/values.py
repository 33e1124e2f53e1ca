"""Values of variables as Compose itself sees them: asked of it, since only it knows where it looks.

The resolved model names the variable of a config or secret and leaves its value out. A service that passes
the same variable on has its value in its environment, which Compose writes out. The question holds names
alone, and the answer comes over a pipe, so that no value shows among the arguments of a process.

A file that is included may have env files of its own, in which Compose looks for the variables of what it
declares. So the question has the same includes, each with a file that asks instead of the one included.
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

_ASKER = "values"
_MOST_FILES = 100


class Question:
    """Compose files that ask for ``variables``: those behind each config and secret, by ``value_key``.

    ``files`` are the project's Compose files, ``directory`` its directory. Reads them.
    """

    def __init__(self, variables: Mapping[str, str], files: Sequence[Path], directory: Path) -> None:
        self._variables = variables
        self._asked: list[dict[str, Any]] = []
        self._owner: dict[str, int] = {}
        self._add(files, directory)
        self._owner = {key: self._owner.get(key, 0) for key in variables}
        for number, asked in enumerate(self._asked):
            mine = sorted({variables[key] for key, owner in self._owner.items() if owner == number})
            # As a list: only that form is resolved from the env files of an include.
            asker = {"image": _ASKER, "environment": mine}
            asked["services"] = {f"{_ASKER}{number}": asker}

    @property
    def is_simple(self) -> bool:
        """Whether all is declared in the project's own files, so that the includes do not matter."""
        return not any(self._owner.values())

    def write(self, folder: Path) -> bytes:
        """The file to give to ``config --format json``; those that it includes are put into ``folder``."""
        if self.is_simple:
            return json.dumps({"services": self._asked[0]["services"]}).encode()
        texts = [json.dumps(_placed(asked, folder)).encode() for asked in self._asked]
        for number, text in enumerate(texts[1:], 1):
            _place(folder, number).write_bytes(text)
        return texts[0]

    def answer(self, output: bytes) -> dict[str, str | None]:
        """The value behind each key; None for a variable that is not set."""
        services = load_json(output)["services"]
        told = [
            (services.get(f"{_ASKER}{n}") or {}).get("environment") or {} for n in range(len(self._asked))
        ]
        found = {key: told[owner].get(self._variables[key]) for key, owner in self._owner.items()}
        return {key: None if value is None else unescaped(value) for key, value in found.items()}

    def _add(self, files: Sequence[Path], directory: Path) -> int:
        number = len(self._asked)
        includes: list[dict[str, Any]] = []
        self._asked.append({"include": includes})
        models = [_parsed(file) for file in files]
        for key in (key for model in models for key in _declared(model) if key in self._variables):
            # What includes comes first, as it does where both declare the same.
            self._owner.setdefault(key, number)
        for entry in (entry for model in models for entry in _listed(model.get("include"))):
            told = entry if isinstance(entry, dict) else {"path": entry}
            paths = [path for path in _listed(told.get("path")) if isinstance(path, str) and "$" not in path]
            if not paths or len(self._asked) >= _MOST_FILES:
                continue
            base = directory / (told.get("project_directory") or Path(paths[0]).parent)
            included = self._add([directory / path for path in paths], base)
            more = {"env_file": told["env_file"]} if told.get("env_file") else {}
            includes.append({"path": included, "project_directory": str(base), **more})
        return number


def _placed(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    includes = [{**entry, "path": str(_place(folder, entry["path"]))} for entry in asked["include"]]
    return {**asked, "include": includes} if includes else {"services": asked["services"]}


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
