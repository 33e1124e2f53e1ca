"""Copies files into a container before its start, as Compose does at its own start.

The engine does not know these files: configs and secrets whose value is in the model or in a variable, and
the credentials of ``use_api_socket``. They are written at each start, exactly as Compose does it: one archive
for each file, unpacked at the root.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Awaitable, Callable

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.start.definition import Definition
from reconciler.engine.error_reasons import failure
from reconciler.errors import ContainerGone, PermanentStepFailure
from reconciler.model.start_work import API_SOCKET_FILE, CONFIG, InjectedFile

_API_SOCKET = InjectedFile(kind=CONFIG, source="credentials of use_api_socket", target=API_SOCKET_FILE)


class Injector:
    """Writes files into containers. ``credentials`` returns the content for ``use_api_socket``."""

    def __init__(self, http: DockerHttp, credentials: Callable[[], Awaitable[str]]) -> None:
        self._http = http
        self._credentials = credentials

    async def inject(self, container: str, service: str, definition: Definition) -> None:
        """Write all files of the definition.

        Raises:
            PermanentStepFailure: the container is read-only, or an owner is not a number.
            StepFailed: a value is missing, or the engine refused.
            ContainerGone: there is no such container.
        """
        work = definition.work
        files = [(file, definition.content(file)) for file in work.files]
        if work.api_socket:
            files.append((_API_SOCKET, await self._credentials()))
        for file, content in files:
            if not content:
                continue
            if work.read_only:
                message = (
                    f"{file.key} can't be copied into {service}, whose root file system is read-only; "
                    "give it by `file:`"
                )
                raise PermanentStepFailure(message, "files_not_copied")
            await self._write(container, file, archive(file, content, time.time()))

    async def _write(self, container: str, file: InjectedFile, content: bytes) -> None:
        path, owned = f"/containers/{container}/archive", bool(file.uid or file.gid)
        try:
            try:
                await self._http.put(path, content, path="/", copyUIDGID=owned)
            except Refused as error:
                # The engine looks up `user: 1000:1000` in the host's passwd file and fails. Without the
                # option the owner in the archive counts, which is the one in the Compose file.
                if not owned or "passwd database" not in str(error):
                    raise
                await self._http.put(path, content, path="/", copyUIDGID=False)
        except Refused as error:
            if error.status == 404 and "no such container" in str(error).lower():
                raise ContainerGone(f"container {container[:12]} is gone") from error
            raise failure(f"{file.key} can't be copied to {file.target}: {error}") from error


def archive(file: InjectedFile, content: str, now: float) -> bytes:
    """Return a tar archive of the file. ``now`` becomes its modification time, in seconds since the epoch.

    Raises:
        PermanentStepFailure: its owner is given by name, which Compose refuses too.
    """
    owners = {"uid": file.uid or "0", "gid": file.gid or "0"}
    for key, value in owners.items():
        if not value.isdecimal():
            raise PermanentStepFailure(f"{file.key}: {key} {value!r} is not a number", "definition_invalid")
    body = content.encode()
    entry = tarfile.TarInfo(file.target)
    entry.size, entry.mode, entry.mtime = len(body), file.mode, int(now)
    entry.uid, entry.gid = int(owners["uid"]), int(owners["gid"])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()
