"""Finds attributes of a commit (``.gitattributes``) that break git once the commit is checked out."""

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


def encoding_mistakes(git: Git, files: Mapping[str, TreeFile]) -> list[Mistake]:
    """Return a mistake for every line of ``.gitattributes`` that sets ``working-tree-encoding``.

    A file that can't be converted makes ``git status`` fail: no write could be committed and no push accepted
    afterwards. ``files`` are all files of the commit.
    """
    sources = {
        name: entry.oid
        for name, entry in files.items()
        if name.rpartition("/")[2] == _NAME and entry.mode != _LINK
    }
    found = read_blobs(git, sources.values())
    return [mistake for name, oid in sorted(sources.items()) for mistake in _encoded(name, found[oid])]


def encoded_lines(content: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield (line, column, value) where a file sets ``working-tree-encoding``; both count from 1."""
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").split("\n"), 1):
        pattern = _PATTERN.match(line)
        if pattern is None or line.lstrip(" \t\r").startswith("#"):
            continue
        for attribute in _ATTRIBUTE.finditer(line, pattern.end()):
            name, _, value = attribute.group().partition("=")
            if name == _ENCODING:
                yield number, attribute.start() + 1, value


def changed_after_checkout(layout: Git, index: Path, git: Git, commit: str) -> list[Mistake]:
    """Return files of a staged commit that git reports as changed right after the checkout.

    Line ends that ``text`` or ``eol`` converts and lossy filters cause this: the file would always count as
    edited by hand, and every push would be refused. ``index`` holds the commit. A file with the same problem
    and the same attributes in the current commit is accepted.
    """
    layout.run("update-index", "--refresh", index=index)
    listed = layout("diff-files", "--name-only", "-z", index=index).decode(errors="surrogateescape")
    names = [name for name in listed.split("\0") if name]
    if not names:
        return []
    then, head = tree(git, commit), rev_parse(git, "HEAD")
    now = tree(git, head) if head else {}
    if _attributes(then) == _attributes(now):
        names = [name for name in names if then.get(name) != now.get(name)]
    message = (
        "counts as changed right after a checkout, since an attribute (text, eol, ident or filter) converts "
        "it; run `git add --renormalize .`, commit, and push again"
    )
    return [Mistake(name, 0, 0, message) for name in names]


def _encoded(name: str, content: bytes) -> Iterator[Mistake]:
    for line, column, value in encoded_lines(content):
        setting = f"{_ENCODING}={value}" if value else _ENCODING
        yield Mistake(name, line, column, f"{setting} is not allowed: desired state is UTF-8; remove it")


def _attributes(files: Mapping[str, TreeFile]) -> dict[str, TreeFile]:
    return {name: entry for name, entry in files.items() if name.rpartition("/")[2] == _NAME}
