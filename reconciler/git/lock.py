"""Serialises changes of the work tree: writes of the daemon, commits, checkouts of a push.

The lock is on the repository's folder itself, so that no extra file is needed. The kernel releases it when
its holder exits. Users' own git does not take it; their changes show as ``index.lock`` and in the files.
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
    """Take the lock and return its descriptor; None if it is held. Closing the descriptor releases it."""
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
        WriteRefused: ``being_written``; the lock is still held.
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
    """Hold the lock of the work tree ``top`` without blocking the event loop; outside a work tree hold none.

    Waits up to ``patience`` seconds, and raises as ``locked``.
    """
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
    """Wait until the lock is free, up to ``patience`` seconds; return whether it is free."""
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
    return WriteRefused(
        "being_written",
        f"another git operation is in progress in {directory.parent}",
        "try again in a moment",
    )
