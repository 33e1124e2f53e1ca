"""The key of ``keyed_digest`` in the state directory: 32 random bytes, mode 0600, created once."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from reconciler.host.atomic_files import mkdir_private, write_file
from reconciler.model.keyed_digest import KEY_BYTES, DigestKey
from reconciler.model.resolved_compose import Resolved
from reconciler.model.secret_values import with_digests

log = logging.getLogger(__name__)

NAME = "digest.key"


def read_key(state_dir: Path) -> DigestKey | None:
    """Read the key; return None if it is missing or unusable. Writes nothing."""
    try:
        secret = (state_dir / NAME).read_bytes()
    except OSError:
        return None
    return DigestKey(secret) if len(secret) == KEY_BYTES else None


def load_key(state_dir: Path) -> DigestKey:
    """Read the key, or create it; renames a file with a wrong length to ``digest.key.damaged``.

    The caller holds the lock of the state directory, so that only one process creates a key. If the disk
    can't be written, the key lasts as long as the process: digests with another key do not count as a change,
    so that no container is recreated.
    """
    path = state_dir / NAME
    key = read_key(state_dir)
    if key is not None:
        return key
    key = DigestKey(secrets.token_bytes(KEY_BYTES))
    try:
        if path.exists():
            log.warning("the digest key is damaged and is created again", extra={"path": str(path)})
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"{NAME}.damaged"))
        mkdir_private(state_dir)
        write_file(path, key.secret)
    except OSError as error:
        log.warning("the digest key can't be saved", extra={"path": str(path), "error": str(error)})
    return key


class Resolve(Protocol):
    """A resolver of Compose files; ``reconciler.engine.ComposeResolver`` is one."""

    async def __call__(
        self,
        files: Sequence[Path],
        directory: Path,
        project: str,
        *,
        without: str = "",
        remote: bool = False,
    ) -> Resolved:
        """Return the resolved model of the files; ``without`` is removed from all paths before hashing.

        ``remote``: Compose may fetch included files.
        """


def keyed(resolve: Resolve, key: DigestKey | None) -> Resolve:
    """Return ``resolve`` with keyed digests of the values copied into containers added to its result."""

    async def resolved(
        files: Sequence[Path], directory: Path, project: str, *, without: str = "", remote: bool = False
    ) -> Resolved:
        model = await resolve(files, directory, project, without=without, remote=remote)
        return with_digests(model, key)

    return resolved
