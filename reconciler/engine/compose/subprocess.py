"""Runs one Compose process: limited in time and memory, and killed together with its own children.

This module does not know which command Compose runs.
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
from reconciler.host.atomic_files import mkdir_private, open_private

_TAIL = 200
"""Number of output lines kept: a build prints much, and the reason comes last."""
_LINE = 4096
_CHUNK = 65536
_MOST_OUTPUT = 64 * 2**20
_MERCY = 3.0
"""Seconds between SIGTERM and SIGKILL."""
_LOCK_PAUSE = 0.1


class ProcessResult(NamedTuple):
    """How a process ended: exit code, standard output if requested, the last lines of its messages."""

    code: int
    output: bytes
    messages: tuple[str, ...]


class ChildTimedOut(Exception):
    """The process was killed: it was silent for too long, or ran too long in all."""


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
    """Run a program to its end, with ``directory`` as working directory and PWD.

    If that directory is gone, the program runs in the root directory with the same PWD: a stored model holds
    absolute paths only, so a stack can be repaired without its folder.

    ``quiet`` is the number of seconds that it may be silent, ``limit`` the number that it may take in all.
    ``given`` is its standard input; ``keep_output`` keeps its standard output whole instead of treating it as
    messages.

    Raises:
        ChildTimedOut: it was killed for taking too long.
        OSError: it can't be started.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environ, "PWD": directory},
        cwd=await asyncio.to_thread(_usable, directory),
        # A process group of its own, so that its plugins and helpers are killed with it.
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
    messages = _Tail()
    output = bytearray()
    last = asyncio.get_running_loop().time() + limit
    async with asyncio.timeout(min(quiet, limit)) as patience:

        def on_output() -> None:
            patience.reschedule(min(asyncio.get_running_loop().time() + quiet, last))

        await asyncio.gather(
            _feed(process, given),
            _drain(process.stdout, output.extend if keep_output else messages.add, on_output),
            _drain(process.stderr, messages.add, on_output),
        )
        code = await process.wait()
    return ProcessResult(code, bytes(output), messages.lines())


async def _feed(process: asyncio.subprocess.Process, given: bytes) -> None:
    if process.stdin is None:
        return
    # A process that ends without reading all of it has its own message.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


async def _drain(
    stream: asyncio.StreamReader, keep: Callable[[bytes], None], on_output: Callable[[], None]
) -> None:
    total = 0
    while chunk := await stream.read(_CHUNK):
        on_output()
        total += len(chunk)
        if total <= _MOST_OUTPUT:
            keep(chunk)


class _Tail:
    """The last lines of an output, each limited in length."""

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
    """Kill all processes that remain in the child's group."""
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
    """Hold the lock on ``path``; yields its descriptor, to be inherited by the child.

    The lock belongs to the open file, which a child inherits: if the daemon is killed, the lock stays held
    until the child ends too, and the next daemon waits for that. So it is released only by closing; an unlock
    would also release it for a child that still runs.

    Raises:
        StepFailed: it stays locked for ``patience`` seconds (``compose_busy``).
    """
    mkdir_private(path.parent)
    descriptor = _opened(path)
    try:
        await _acquire(descriptor, path, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        # Enough to lock it, and all that a read-only file system allows.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return open_private(path, os.O_RDWR | os.O_CREAT)


async def _acquire(descriptor: int, path: Path, patience: float) -> None:
    # Contended only after a daemon was killed during a call, so polling costs nothing; a thread blocked in
    # flock could not be cancelled.
    try:
        async with asyncio.timeout(patience):
            while not _try_lock(descriptor):  # noqa: ASYNC110 - no event reports a released lock
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
