"""One change of the work tree at a time: writes of the daemon, commits, checkouts of a push.

A lock on the repository's own folder, so that no file of ours lies in it. The kernel gives it back when its
holder ends. People's own git does not know of it; what they do shows as ``index.lock`` and in the files.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from reconciler.errors import WriteRefused
from reconciler.git.command import git_dir

_PAUSE = 0.005
_PATIENCE = 10.0


def try_lock(directory: Path) -> int | None:
    """The descriptor of the lock, None: another holds it just now. Closing it gives it back."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(directory: Path, patience: float = _PATIENCE) -> Iterator[int]:
    """Hold the lock of a repository; yields its descriptor. Blocks, up to ``patience`` seconds.

    Raises:
        WriteRefused: ``being_written``; it was not to be had.
    """
    deadline = time.monotonic() + patience
    while (descriptor := try_lock(directory)) is None:
        if time.monotonic() > deadline:
            raise _busy(directory)
        time.sleep(_PAUSE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def lock_unless_pushed(top: Path, patience: float = _PATIENCE) -> AsyncIterator[None]:
    """The same for coroutines, by the top of the work tree; nothing to hold where it is none."""
    directory = git_dir(top)
    if directory is None:
        yield
        return
    deadline = time.monotonic() + patience
    while (descriptor := try_lock(directory)) is None:
        if time.monotonic() > deadline:
            raise _busy(directory)
        await asyncio.sleep(_PAUSE)
    try:
        yield
    finally:
        os.close(descriptor)


async def wait_until_free(top: Path, patience: float) -> bool:
    """Wait until nobody holds the lock, at most so many seconds; whether it is free."""
    directory = git_dir(top)
    deadline = time.monotonic() + patience
    while directory is not None:
        descriptor = try_lock(directory)
        if descriptor is not None:
            os.close(descriptor)
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_PAUSE)
    return True


def _busy(directory: Path) -> WriteRefused:
    return WriteRefused("being_written", f"git is at work in {directory.parent}", "try again in a moment")
