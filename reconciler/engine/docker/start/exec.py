"""Runs one command in a container and keeps the end of its output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from reconciler.engine.docker.frames import FrameParser
from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.errors import EngineUnavailable
from reconciler.model.start_work import Hook

_ERROR_STREAM = 2
_KEPT = 2048
"""Bytes of each stream that are kept: a reason comes last, and Compose keeps as many."""
_LINES = 10


class Ended(NamedTuple):
    """How a command ended: its exit code, and its last lines, of standard error if there are any."""

    code: int
    output: str


class Tail:
    """Keeps the last bytes of standard output and error, from the frames of the engine."""

    def __init__(self) -> None:
        self._parser = FrameParser()
        self._is_broken = False
        self._kept: dict[int, bytearray] = {}
        self._cut: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Read a chunk of the stream, which may be cut anywhere; the memory used is bounded.

        Ignores everything after an invalid frame: the exit code of the command counts, not its output.
        """
        if self._is_broken:
            return
        try:
            for part in self._parser.feed(chunk):
                self._keep(part.stream, part.content)
        except EngineUnavailable:
            self._is_broken = True

    def _keep(self, stream: int, content: bytes) -> None:
        kept = self._kept.setdefault(stream, bytearray())
        kept += content
        if len(kept) > _KEPT:
            del kept[:-_KEPT]
            self._cut.add(stream)

    def text(self) -> str:
        """Return the last lines of standard error, or of standard output if that is empty."""
        output = self._whole_lines(_ERROR_STREAM).strip()
        output = output or b"\n".join(self._whole_lines(stream) for stream in self._kept)
        # A progress bar rewrites its line with bare carriage returns: its last state counts.
        lines = (line.rstrip().rpartition("\r")[2] for line in output.decode(errors="replace").split("\n"))
        shown = [line for line in lines if line.strip()][-_LINES:]
        return "\n".join([*shown, *(["the rest of the output can't be read"] if self._is_broken else [])])

    def _whole_lines(self, stream: int) -> bytes:
        kept = bytes(self._kept.get(stream, b""))
        # Half of a secret that was cut in two would not be recognised as one.
        return kept.partition(b"\n")[2] if stream in self._cut else kept


def environment_of(environment: Mapping[str, str | None]) -> list[str]:
    """Return an environment in the engine's format; a name alone if it has no value, as Compose writes it."""
    return [name if value is None else f"{name}={value}" for name, value in environment.items()]


async def execute(http: DockerHttp, container: str, hook: Hook) -> Ended:
    """Run the command of a hook to its end. Cancelling leaves the command running: the engine can't end it.

    Raises:
        Refused: the engine does not run it; 404 and 409 if the container is gone or does not run.
        EngineUnavailable: no response.
    """
    body: dict[str, Any] = {
        "Cmd": list(hook.command),
        "User": hook.user,
        "Privileged": hook.privileged,
        "Env": environment_of(hook.environment),
        "WorkingDir": hook.working_dir,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    exec_id = (await http.post(f"/containers/{container}/exec", body))["Id"]
    tail = Tail()
    start = {"Detach": False, "Tty": False}
    async with http.stream("POST", f"/exec/{exec_id}/start", start) as reply:
        await _read(reply.chunks(), tail)
    ended = await http.get(f"/exec/{exec_id}/json")
    code = ended.get("ExitCode")
    # The output also ends with the container, which the engine records a moment later.
    return Ended(-1 if code is None or ended.get("Running") else int(code), tail.text())


async def _read(chunks: AsyncIterator[bytes], tail: Tail) -> None:
    async with aclosing(chunks) as pieces:  # type: ignore[type-var]
        async for chunk in pieces:
            tail.feed(chunk)


__all__ = ["Ended", "Refused", "Tail", "environment_of", "execute"]
