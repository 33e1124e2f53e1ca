"""The key of ``keyed_digest`` in the state directory: 32 random bytes, mode 0600, made once."""

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
    """The key as it lies there; None where there is none that can be used. Writes nothing."""
    try:
        secret = (state_dir / NAME).read_bytes()
    except OSError:
        return None
    return DigestKey(secret) if len(secret) == KEY_BYTES else None


def load_key(state_dir: Path) -> DigestKey:
    """The key, made if there is none; a file of another length is set aside under another name.

    The caller holds the lock of the state directory, so that no two processes make a key. Where the disk
    allows none, the key lasts as long as the process: digests of another key are no change, so that nothing
    is remade for it.
    """
    path = state_dir / NAME
    key = read_key(state_dir)
    if key is not None:
        return key
    key = DigestKey(secrets.token_bytes(KEY_BYTES))
    try:
        if path.exists():
            log.warning("the digest key is damaged and made again", extra={"path": str(path)})
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"{NAME}.damaged"))
        mkdir_private(state_dir)
        write_file(path, key.secret)
    except OSError as error:
        log.warning("the digest key can't be kept", extra={"path": str(path), "error": str(error)})
    return key


class Resolve(Protocol):
    """What resolves Compose files; ``engine.compose.resolve`` is one."""

    async def __call__(
        self, files: Sequence[Path], directory: Path, project: str, *, without: str = ""
    ) -> Resolved:
        """What the files mean."""


def keyed(resolve: Resolve, key: DigestKey | None) -> Resolve:
    """``resolve``, whose result also has keyed digests of what is copied into containers."""

    async def resolved(
        files: Sequence[Path], directory: Path, project: str, *, without: str = ""
    ) -> Resolved:
        return with_digests(await resolve(files, directory, project, without=without), key)

    return resolved
