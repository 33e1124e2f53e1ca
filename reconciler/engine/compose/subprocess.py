"""Runs one Compose child: bounded in time and in memory, killed with all of its own children.

Nothing here knows what Compose is asked to do; ``engine.py`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import StepFailed

_TAIL = 200
"""Lines of output that are kept: a build says a lot, and the reason comes last."""
_LINE = 4096
_CHUNK = 65536
_MOST_OUTPUT = 64 * 2**20
_MERCY = 3.0
"""Seconds between SIGTERM and SIGKILL."""
_LOCK_PAUSE = 0.1


class ProcessResult(NamedTuple):
    """How a child ended: exit code, standard output where it was asked for, last lines said."""

    code: int
    output: bytes
    said: tuple[str, ...]


class ChildTimedOut(Exception):
    """The child was killed: it said nothing for too long, or took too long in all."""


async def run(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    quiet: float,
    limit: float,
    directory: str = "/",
    given: bytes = b"",
    keep_output: bool = False,
    pass_fds: Sequence[int] = (),
) -> ProcessResult:
    """Run a program to its end, in the working directory ``directory`` and with PWD set to it.

    Where that directory is gone, the program runs in the root directory with the same PWD: a frozen
    model holds absolute paths only, so that a stack stays repairable without its folder.

    ``quiet`` is how many seconds it may say nothing, ``limit`` how many it may take in all.
    ``given`` goes to its standard input; ``keep_output`` keeps its standard output whole instead of
    treating it as messages.

    Raises:
        Silent: it was killed for taking too long.
        OSError: it can't be started.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environ, "PWD": directory},
        cwd=await asyncio.to_thread(_usable, directory),
        # A group of its own, so that the plugins and helpers that it starts die with it.
        start_new_session=True,
        pass_fds=pass_fds,
    )
    try:
        return await _attend(process, quiet, limit, given, keep_output)
    except TimeoutError as error:
        raise ChildTimedOut from error
    finally:
        await _end(process)


def _usable(directory: str) -> str:
    return directory if os.path.isdir(directory) and os.access(directory, os.X_OK) else "/"  # noqa: PTH112


async def _attend(
    process: asyncio.subprocess.Process, quiet: float, limit: float, given: bytes, keep_output: bool
) -> ProcessResult:
    assert process.stdout is not None
    assert process.stderr is not None
    said = _Tail()
    output = bytearray()
    last = asyncio.get_running_loop().time() + limit
    async with asyncio.timeout(min(quiet, limit)) as patience:

        def heard() -> None:
            patience.reschedule(min(asyncio.get_running_loop().time() + quiet, last))

        await asyncio.gather(
            _feed(process, given),
            _drain(process.stdout, output.extend if keep_output else said.add, heard),
            _drain(process.stderr, said.add, heard),
        )
        code = await process.wait()
    return ProcessResult(code, bytes(output), said.lines())


async def _feed(process: asyncio.subprocess.Process, given: bytes) -> None:
    if process.stdin is None:
        return
    # A child that ends without reading all of it has its own message.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


async def _drain(
    stream: asyncio.StreamReader, keep: Callable[[bytes], None], heard: Callable[[], None]
) -> None:
    total = 0
    while chunk := await stream.read(_CHUNK):
        heard()
        total += len(chunk)
        if total <= _MOST_OUTPUT:
            keep(chunk)


class _Tail:
    """The last lines of an output, each cut to a sane length."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL)
        self._rest = b""

    def add(self, chunk: bytes) -> None:
        # A progress bar rewrites its line with bare carriage returns.
        *lines, self._rest = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-_LINE:]
        self._lines.extend(_text(line) for line in lines if line.strip())

    def lines(self) -> tuple[str, ...]:
        rest = [_text(self._rest)] if self._rest.strip() else []
        return (*self._lines, *rest)


def _text(line: bytes) -> str:
    return line[:_LINE].decode(errors="replace").rstrip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """See to it that nothing of the child's group is left."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MERCY):
                await process.wait()
    if process.returncode is None:
        _signal(process.pid, signal.SIGKILL)
        await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@asynccontextmanager
async def hold_lock(path: Path, patience: float) -> AsyncIterator[int]:
    """Hold the lock on ``path``; yields its descriptor, to be handed to the child.

    The lock belongs to the open file, which a child inherits: when we are killed, it stays held
    until the child ends too, and the daemon that comes after us waits for that. So it is let go by
    closing alone; an unlock would take it from a child that is still at work.

    Raises:
        StepFailed: not to be had within ``patience`` seconds.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _opened(path)
    try:
        await _acquire(descriptor, path, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        # Enough to lock it, and all that a disk that turned read-only allows.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


async def _acquire(descriptor: int, path: Path, patience: float) -> None:
    # Contended only after a daemon was killed in mid-call, so that asking now and then costs nothing;
    # a thread blocked in flock could not be taken back.
    try:
        async with asyncio.timeout(patience):
            while not _try_lock(descriptor):  # noqa: ASYNC110 - no event tells of a lock let go
                await asyncio.sleep(_LOCK_PAUSE)
    except TimeoutError as error:
        message = f"another Docker Compose call for this project does not end (lock {path})"
        raise StepFailed(message, "compose_busy") from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
