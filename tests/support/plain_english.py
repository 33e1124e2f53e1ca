"""Counts phrases that engineers of this field do not use, per 1,000 words of comments and messages.

Widely used projects (kopf, httpx, structlog, click, Home Assistant's supervisor) have 0.2 to 0.4 by this
list. ``python -m tests.support.plain_english [--show N] [PATH ...]`` prints the rate of each path, and the
first N hits.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PATHS = (
    "reconciler",
    "api",
    "tests",
    "dashboard",
    "desired-state",
    "systemd",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "SECURITY.md",
    "AGENTS.md",
)
_KINDS = frozenset({".py", ".js", ".md", ".html"})
_FOREIGN = frozenset({"vendor", ".venv", "node_modules"})

# An underscore is the space between two words: a string without spaces counts as no prose.
_TERMS = (
    "told|tells?_of|is_told|are_told|be_told|tells_so",
    "whoever|whomever|whichever|wherever|nobody|somebody",
    "to_be_had|is_to_be|are_to_be|for_want_of|for_ever|anew|meanwhile",
    "stands|stood|lies|mends|mended|mending|mend",
    "taken_away|take_away|takes_away|put_back|puts_back|lets_go|let_go|let_be",
    "of_ours|of_theirs|by_itself|the_very|this_very|that_very",
    "hands_off|last_words|farewell|witness",
    "asked|hears|hear|heard|deaf|blind|mute",
    "whom|who_asks|who_waits|who_has|who_reads",
    "is_as_said|as_asked|all_is_as|in_vain|sees_to_it|see_to_it|nothing_here|is_none|are_none",
)
_PHRASES = re.compile(rf"\b(?:{'|'.join(_TERMS)})\b".replace("_", " "), re.IGNORECASE)
_PROSE_LINE = re.compile(r"//|/\*|^\s*\*|[\"'`]")


class Hit(NamedTuple):
    """One place: where it is, what was found, the text around it."""

    path: Path
    line: int
    phrases: tuple[str, ...]
    text: str


class Count(NamedTuple):
    """What one path came to."""

    words: int
    hits: tuple[Hit, ...]

    @property
    def rate(self) -> float:
        """Phrases per 1,000 words."""
        return 1000 * sum(len(hit.phrases) for hit in self.hits) / max(self.words, 1)


def count(name: str) -> Count:
    """Counts one file, or every file of a folder."""
    root = ROOT / name
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if _is_ours(path))
    words, hits = 0, []
    for path in files:
        for line, text in _prose(path):
            words += len(text.split())
            if phrases := tuple(found[0] for found in _PHRASES.finditer(text)):
                hits.append(Hit(path.relative_to(ROOT), line, phrases, " ".join(text.split())))
    return Count(words, tuple(hits))


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.suffix in _KINDS and not _FOREIGN.intersection(path.parts)


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(errors="replace")
    if path.suffix == ".py":
        yield from _strings(text)
        yield from _comments(text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if path.suffix in {".md", ".html"} or _PROSE_LINE.search(line):
            yield number, line


def _strings(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def main(words: Sequence[str]) -> int:
    """Prints the rates; exit code 1 if one is above 1.0."""
    show = 0
    if words[:1] == ["--show"]:
        show, words = int(words[1]), words[2:]
    worst = 0.0
    for name in words or [name for name in PATHS if (ROOT / name).exists()]:
        counted = count(name)
        worst = max(worst, counted.rate)
        print(f"{name:24} {counted.rate:5.1f} per 1,000 of {counted.words} words")
        for hit in counted.hits[:show]:
            print(f"  {hit.path}:{hit.line}: {', '.join(hit.phrases)}: {hit.text[:90]}")
    return int(worst > 1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
