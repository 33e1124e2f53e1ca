"""Runs one command in a container and keeps the end of what it says."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.model.start_work import Hook

_FRAME = struct.Struct(">BxxxL")
_ERROR_STREAM = 2
_KEPT = 2048
"""Bytes of each stream that are kept: a reason comes last, and Compose keeps as much."""
_LINES = 10


class Ended(NamedTuple):
    """How a command ended: exit code, and its last lines, of standard error if there are any."""

    code: int
    output: str


class Tail:
    """The last bytes of standard output and error, out of the frames that the engine mixes them in."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = 0
        self._left = 0
        self._kept: dict[int, bytearray] = {}
        self._cut: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Read a part of the stream, cut anywhere. Memory stays bounded whatever length a frame claims."""
        while chunk:
            if not self._left:
                missing = _FRAME.size - len(self._head)
                self._head += chunk[:missing]
                chunk = chunk[missing:]
                if len(self._head) < _FRAME.size:
                    return
                self._stream, self._left = _FRAME.unpack(self._head)
                self._head.clear()
            part, chunk = chunk[: self._left], chunk[self._left :]
            self._left -= len(part)
            self._keep(part)

    def _keep(self, part: bytes) -> None:
        # Docker uses streams 0 to 2; the others of a corrupt stream share one buffer.
        stream = min(self._stream, 3)
        kept = self._kept.setdefault(stream, bytearray())
        kept += part
        if len(kept) > _KEPT:
            del kept[:-_KEPT]
            self._cut.add(stream)

    def text(self) -> str:
        """The last lines; standard output only where standard error is empty."""
        said = self._whole_lines(_ERROR_STREAM).strip()
        said = said or b"\n".join(self._whole_lines(stream) for stream in self._kept)
        # A progress bar rewrites its line with bare carriage returns: the last state of it counts.
        lines = (line.rstrip().rpartition("\r")[2] for line in said.decode(errors="replace").split("\n"))
        return "\n".join([line for line in lines if line.strip()][-_LINES:])

    def _whole_lines(self, stream: int) -> bytes:
        kept = bytes(self._kept.get(stream, b""))
        # Of a secret that was cut in two, the half would not be recognised as one.
        return kept.partition(b"\n")[2] if stream in self._cut else kept


def environment_of(environment: Mapping[str, str | None]) -> list[str]:
    """An environment as the engine takes it; a name alone where there is no value, as Compose writes it."""
    return [name if value is None else f"{name}={value}" for name, value in environment.items()]


async def execute(http: DockerHttp, container: str, hook: Hook) -> Ended:
    """Run the command of a hook to its end. Cancelling leaves the command running: the engine can't end it.

    Raises:
        Refused: the engine does not run it; 404 and 409 where the container is gone or does not run.
        EngineUnavailable: no answer.
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
    # The stream of a command also ends with its container, which the engine notes a moment later.
    return Ended(-1 if code is None or ended.get("Running") else int(code), tail.text())


async def _read(chunks: AsyncIterator[bytes], tail: Tail) -> None:
    async with aclosing(chunks) as pieces:  # type: ignore[type-var]
        async for chunk in pieces:
            tail.feed(chunk)


__all__ = ["Ended", "Refused", "Tail", "environment_of", "execute"]
