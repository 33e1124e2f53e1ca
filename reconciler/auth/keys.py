"""API keys: named, with a role, kept as digests in the state directory.

A key is 256 random bits, so a plain SHA-256 of it can't be turned around, and a slow hash would only be a
lever against a small box. The file is changed by the command line and read by a running daemon.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import ServiceManagerError
from reconciler.host.atomic_files import chown_like, mkdir_private, write_file
from reconciler.host.untrusted import MALFORMED, is_transient, read_regular
from reconciler.model.json_text import load_json

log = logging.getLogger(__name__)

NAME = "keys.json"
_LOCK = "keys.lock"
PREFIX = "sm_"
VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)
ENVIRONMENT = "environment"
"""The name of the key that comes with the daemon's environment."""

RESERVED = frozenset({ENVIRONMENT, "anonymous", "daemon", "file", "loop", "local", "root"})
"""Names that say something else where they stand in the audit log."""

_A_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCHEMA = 1
_MOST = 1000
_MOST_BYTES = 1 << 20
_EVERY = 0.25
"""Seconds between looks at the file."""


class KeyStoreError(ServiceManagerError):
    """Keys can't be read or changed as asked. ``remedy`` says what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Key(NamedTuple):
    """A key as it is kept: never the key itself. ``created_at`` is wall time in seconds."""

    name: str
    role: str
    digest: bytes
    created_at: float = 0.0


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def make_key() -> str:
    """A new key: 256 random bits, in letters and digits that nobody confuses."""
    return PREFIX + base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()


class KeyFile:
    """The keys of a state directory, to look at and to change."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir
        self.path = state_dir / NAME

    def read(self) -> tuple[Key, ...]:
        """All keys; none where there is no file.

        Raises:
            KeyTrouble: the file can't be read, or is none of ours.
        """
        try:
            return _parsed(read_regular(self.path, _MOST_BYTES))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"{self.path} can't be read: {error.strerror}") from error
        except MALFORMED as error:
            raise KeyStoreError(
                f"{self.path} is damaged: {error}", "remove the file, and make new keys"
            ) from None

    def add(self, name: str, role: str, *, at: float) -> str:
        """Make a key; durable when it is returned, and never to be had again.

        Raises:
            KeyTrouble: the name is taken or can't be one, or the file can't be changed.
        """
        if not _A_NAME.fullmatch(name):
            raise KeyStoreError(
                f"{name!r} can't be a name", "letters, digits and . _ @ - are, up to 64 of them"
            )
        if name in RESERVED:
            raise KeyStoreError(
                f"the name {name!r} has a meaning of its own in the audit log", "choose another name"
            )
        if role not in ROLES:
            raise KeyStoreError(f"there is no role {role!r}", f"there are {' and '.join(ROLES)}")
        with self._locked():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise KeyStoreError(
                    f"there is a key {name!r} already", f"`service-manager key revoke {name}` first"
                )
            if len(keys) >= _MOST:
                raise KeyStoreError(f"there are {len(keys)} keys already", "revoke those that nobody uses")
            made = make_key()
            self._write((*keys, Key(name, role, key_hash(made), at)))
        return made

    def revoke(self, name: str) -> int:
        """Take a key away; durable when this returns how many are left.

        Raises:
            KeyTrouble: there is no such key, or the file can't be changed.
        """
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                known = ", ".join(key.name for key in keys)
                raise KeyStoreError(
                    f"there is no key {name!r}", f"there are: {known}" if known else "there are none"
                )
            self._write(left)
        return len(left)

    def _write(self, keys: tuple[Key, ...]) -> None:
        told = [{**key._asdict(), "digest": key.digest.hex()} for key in keys]
        content = json.dumps({"schema": _SCHEMA, "keys": told}, indent=1)
        try:
            write_file(self.path, f"{content}\n".encode())
        except OSError as error:
            raise KeyStoreError(f"{self.path} can't be written: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            mkdir_private(self._directory)
            descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KeyStoreError(
                f"{self._directory} can't be written: {error.strerror}",
                "run it as the user that the daemon runs as, or with sudo",
            ) from error
        try:
            chown_like(descriptor, self._directory)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parsed(content: bytes) -> tuple[Key, ...]:
    told = load_json(content)
    if told["schema"] != _SCHEMA:
        raise ValueError(f"schema {told['schema']} is not known here")
    return tuple(_key(entry) for entry in told["keys"])


def _key(told: dict[str, object]) -> Key:
    key = Key(
        str(told["name"]),
        str(told["role"]),
        bytes.fromhex(str(told["digest"])),
        float(str(told["created_at"])),
    )
    if key.role not in ROLES or len(key.digest) != hashlib.sha256().digest_size:
        raise ValueError(f"key {key.name!r} has no role or digest that could be one")
    return key


class KeyRing:
    """The keys that hold now, for a running daemon: those of the file and that of its environment.

    Looks at the file when asked, at most four times a second. A file that can't be read or is damaged
    opens nothing: no key of it holds then, and a key is needed all the same. ``always``: a key is needed
    though there is none. Without ``state_dir`` there is no file. ``clock`` is monotonic.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        environment: str = "",
        always: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = KeyFile(state_dir) if state_dir is not None else None
        self._given = (Key(ENVIRONMENT, OPERATOR, key_hash(environment)),) if environment else ()
        self._always = always
        self._clock = clock
        self._looked_at = float("-inf")
        self._seen: tuple[int, ...] | None = None
        self._read: tuple[Key, ...] = ()
        self._damaged = False

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._always or self._current()) or self._damaged

    @property
    def empty(self) -> bool:
        """Whether there is no key, nor a file that might hold one."""
        return not self._current() and not self._damaged

    def find(self, key: str) -> Key | None:
        """The key that this is; compared with every one in the same time, whichever it is."""
        return self.find_by_digest(key_hash(key))

    def find_by_digest(self, digest: bytes) -> Key | None:
        """The key with this digest, as it is now; None: it is none, or no longer."""
        found = None
        for key in self._current():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _current(self) -> tuple[Key, ...]:
        now = self._clock()
        if self._file is not None and now - self._looked_at >= _EVERY:
            self._looked_at = now
            self._look(self._file)
        return (*self._given, *self._read)

    def _look(self, file: KeyFile) -> None:
        try:
            found = file.path.stat()
            seen: tuple[int, ...] | None = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            seen = (error.errno or -1,)
        if seen == self._seen:
            return
        try:
            self._read, self._damaged = file.read(), False
            self._seen = seen
        except KeyStoreError as error:
            if isinstance(error.__cause__, OSError) and is_transient(error.__cause__):
                # Says nothing about the file: what was read last holds until the next look, a moment later.
                return
            self._seen = seen
            self._read, self._damaged = (), True
            told = {"error": str(error)}
            log.error("the API keys can't be read; none of them holds", extra=told)  # noqa: TRY400 - no bug
