"""Detects Git LFS pointers where containers expect the real file: a text of 130 bytes instead of a model.

A machine without git-lfs checks out the pointer. Compose mounts it, and the container reads it as its data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from reconciler.host.untrusted import read_regular
from reconciler.model.stack import Service

LARGEST = 1024
"""Largest size of a pointer in bytes, by the specification of Git LFS."""

_SPEC = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_MOST_FILES = 2000
"""Maximum number of files looked at in one mounted folder."""
_MOST_NAMED = 5


def is_pointer(content: bytes) -> bool:
    """Return whether the content of a file is a Git LFS pointer."""
    return len(content) < LARGEST and content.startswith(_SPEC) and b"\noid sha256:" in content


def is_pointer_file(path: Path) -> bool:
    """Return whether a regular file is a Git LFS pointer; False if it can't be read."""
    try:
        return path.stat().st_size < LARGEST and is_pointer(read_regular(path, LARGEST))
    except (OSError, ValueError):
        return False


def pointer_warning(path: str) -> str:
    """Return the warning about a mounted pointer."""
    return f"{path} is a Git LFS pointer, not the file itself: install git-lfs here and run `git lfs pull`"


def pointer_warnings(services: Iterable[Service], root: str = "") -> tuple[str, ...]:
    """Return a warning for each pointer that a service mounts, also inside mounted folders.

    ``root`` is a folder in which a staged copy of the files is, at their absolute paths.
    """
    sources = {m.source: service.name for service in services for m in service.mounts if m.source}
    return tuple(
        f"{service}: {text}" for source, service in sources.items() for text in _warnings(source, root)
    )


def _warnings(source: str, root: str) -> Iterator[str]:
    staged = Path(root + source)
    place = staged if root and os.path.lexists(staged) else Path(source)
    try:
        is_folder = place.is_dir()
    except (OSError, ValueError):
        return
    if not is_folder:
        if is_pointer_file(place):
            yield pointer_warning(source)
        return
    found = [path for path in islice(_files(place), _MOST_FILES) if is_pointer_file(path)]
    for path in found[:_MOST_NAMED]:
        yield pointer_warning(f"{source}/{path.relative_to(place)}")
    if found[_MOST_NAMED:]:
        yield f"{len(found) - _MOST_NAMED} more files in {source} are Git LFS pointers"


def _files(folder: Path) -> Iterator[Path]:
    # Links are not followed, as they may lead anywhere.
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (Path(directory) / name for name in sorted(names))
