"""Attributes of a commit (``.gitattributes``) that would keep git from working once it is checked out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.errors import Mistake
from reconciler.git.command import Git
from reconciler.git.inspect import TreeFile, read_blobs, rev_parse, tree

_NAME = ".gitattributes"
_LINK = "120000"
_ENCODING = "working-tree-encoding"
# A pattern in double quotes may hold blanks; \" does not end it.
_PATTERN = re.compile(r'[ \t\r]*(?:"(?:[^"\\]|\\.)*"|[^ \t\r]+)')
_ATTRIBUTE = re.compile(r"[^ \t\r]+")


def encodings(git: Git, files: Mapping[str, TreeFile]) -> list[Mistake]:
    """Every line of a commit's ``.gitattributes`` that sets ``working-tree-encoding``.

    A file that can't be converted keeps git from telling what changed: no write could be committed and no
    push accepted any more. ``files`` are all files of the commit.
    """
    sources = {
        name: entry.oid
        for name, entry in files.items()
        if name.rpartition("/")[2] == _NAME and entry.mode != _LINK
    }
    found = read_blobs(git, sources.values())
    return [mistake for name, oid in sorted(sources.items()) for mistake in _encoded(name, found[oid])]


def encoded_lines(content: bytes) -> Iterator[tuple[int, int, str]]:
    """(line, column, value) where an attributes file sets ``working-tree-encoding``; both count from 1."""
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").split("\n"), 1):
        pattern = _PATTERN.match(line)
        if pattern is None or line.lstrip(" \t\r").startswith("#"):
            continue
        for attribute in _ATTRIBUTE.finditer(line, pattern.end()):
            name, _, value = attribute.group().partition("=")
            if name == _ENCODING:
                yield number, attribute.start() + 1, value


def unclean(layout: Git, index: Path, git: Git, commit: str) -> list[Mistake]:
    """Files of a laid out commit that git reports as changed right after the checkout.

    Line ends that ``text`` or ``eol`` would convert, and filters that lose something, cause it: the file
    would always count as edited by hand, and every push be refused. ``index`` holds the commit; a file that
    is so in the current commit already, with the same attributes, is left alone.
    """
    layout.run("update-index", "--refresh", index=index)
    told = layout("diff-files", "--name-only", "-z", index=index).decode(errors="surrogateescape")
    names = [name for name in told.split("\0") if name]
    if not names:
        return []
    then, head = tree(git, commit), rev_parse(git, "HEAD")
    now = tree(git, head) if head else {}
    if _attributes(then) == _attributes(now):
        names = [name for name in names if then.get(name) != now.get(name)]
    told = (
        "counts as changed right after a checkout, since an attribute (text, eol, ident or filter) converts "
        "it; `git add --renormalize .`, commit, and push again"
    )
    return [Mistake(name, 0, 0, told) for name in names]


def _encoded(name: str, content: bytes) -> Iterator[Mistake]:
    for line, column, value in encoded_lines(content):
        told = f"{_ENCODING}={value}" if value else _ENCODING
        yield Mistake(name, line, column, f"{told} is not taken: desired state is UTF-8; take it out")


def _attributes(files: Mapping[str, TreeFile]) -> dict[str, TreeFile]:
    return {name: entry for name, entry in files.items() if name.rpartition("/")[2] == _NAME}
