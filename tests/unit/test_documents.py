"""The documents name only paths, modules, make targets and commands that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.commands.definitions.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "README.md",
    "SECURITY.md",
    "AGENTS.md",
)
PAGES = (*DOCUMENTS, *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))))
FOLDERS = (
    ".",
    "reconciler",
    "reconciler/engine",
    "reconciler/planning",
    "tests",
    "tests/support",
    "desired-state",
)
"""The folders that a path in a document may be relative to."""

_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_PATH = re.compile(r"[A-Za-z_.][\w.-]*(/[\w.-]+)*/?")
_FILE = re.compile(r".*\.(py|md|toml|yaml|yml|js)")
_MODULE = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_MAKE = re.compile(r"\bmake ((?:[a-z-]+\b ?(?![=A-Z]))+)")
_COMMAND = re.compile(r"(?:^|[`$/] ?)service-manager ([a-z]+)", re.MULTILINE)
_MADE = {".venv", ".run", ".cache"}
"""Folders that are created while working."""


def _text(document: str) -> str:
    return (ROOT / document).read_text()


def _paths(document: str) -> Iterator[str]:
    text = _text(document)
    yield from (link for link in _LINK.findall(text) if "://" not in link)
    for words in _CODE.findall(text):
        for word in words.split():
            is_path = "/" in word or _FILE.fullmatch(word)
            if is_path and _PATH.fullmatch(word) and word.split("/")[0] not in _MADE:
                yield word


def _exists(path: str) -> bool:
    return any(
        (ROOT / folder / f"{path.rstrip('/')}{ending}").exists()
        for folder in FOLDERS
        for ending in ("", ".py")
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document: str) -> None:
    # NAME is a placeholder.
    missing = [path for path in _paths(document) if "NAME" not in path and not _exists(path)]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_module_exists(document: str) -> None:
    modules = [word for word in _CODE.findall(_text(document)) if _MODULE.fullmatch(word)]
    packages = {path.name for path in (ROOT / "reconciler").iterdir()} | {"reconciler", "api"}
    named = [word for word in modules if word.split(".")[0] in packages and not _FILE.fullmatch(word)]
    assert not [word for word in named if not _exists(word.replace(".", "/"))]


@pytest.mark.parametrize("document", PAGES)
def test_every_named_make_target_exists(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    code = "\n".join([*_CODE.findall(_text(document)), *_blocks(document)])
    named = {target for words in _MAKE.findall(code) for target in words.split()}
    assert named <= targets


@pytest.mark.parametrize("document", PAGES)
def test_every_named_command_exists(document: str) -> None:
    code = "\n".join([*(f"`{words}" for words in _CODE.findall(_text(document))), *_blocks(document)])
    assert set(_COMMAND.findall(code)) <= {command.name.split()[0] for command in COMMANDS}


def _blocks(document: str) -> list[str]:
    """The lines of code blocks, without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", _text(document), re.MULTILINE | re.DOTALL)
    return [re.sub(r"(?m)#.*$", "", block) for block in blocks]
