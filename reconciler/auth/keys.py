"""Named API keys with roles, stored as digests in the state directory.

A key is 256 random bits, so its plain SHA-256 can't be inverted. A slow hash would add no security, and many
requests could overload a small machine with it. The command line writes the file, the daemon reads it.
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
from reconciler.host.atomic_files import mkdir_private, open_private, write_file
from reconciler.host.untrusted import MALFORMED, is_transient, read_regular
from reconciler.model.json_text import load_json

log = logging.getLogger(__name__)

NAME = "keys.json"
_LOCK = "keys.lock"
PREFIX = "sm_"
VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)
ENVIRONMENT = "environment"
"""The name of the key that the daemon's environment sets."""

RESERVED = frozenset({ENVIRONMENT, "anonymous", "daemon", "file", "loop", "local", "root"})
"""Names that have another meaning in the audit log."""

_VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCHEMA = 1
_MAX_KEYS = 1000
_MAX_BYTES = 1 << 20
_CHECK_INTERVAL = 0.25
"""Seconds between checks of the file."""


class KeyStoreError(ServiceManagerError):
    """The keys can't be read or changed. ``remedy`` is what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Key(NamedTuple):
    """The stored form of a key: its digest, never the key. ``created_at`` is wall time in seconds."""

    name: str
    role: str
    digest: bytes
    created_at: float = 0.0


def key_hash(key: str) -> bytes:
    """Return the digest that is stored for a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def make_key() -> str:
    """Return a new key: 256 random bits in base32, which has no characters that look alike."""
    return PREFIX + base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()


class KeyFile:
    """Reads and changes the key file of a state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir
        self.path = state_dir / NAME

    def read(self) -> tuple[Key, ...]:
        """Return all keys; () without a file.

        Raises:
            KeyStoreError: the file can't be read or is damaged.
        """
        try:
            return _parsed(read_regular(self.path, _MAX_BYTES))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"{self.path} can't be read: {error.strerror}") from error
        except MALFORMED as error:
            raise KeyStoreError(
                f"{self.path} is damaged: {error}", "remove the file and create new keys"
            ) from None

    def add(self, name: str, role: str, *, at: float) -> str:
        """Create a key, store its digest durably and return the key. The key can't be retrieved later.

        ``at`` is wall time in seconds.

        Raises:
            KeyStoreError: the name is taken or invalid, or the file can't be changed.
        """
        if not _VALID_NAME.fullmatch(name):
            raise KeyStoreError(f"{name!r} is not a valid name", "use at most 64 letters, digits and . _ @ -")
        if name in RESERVED:
            raise KeyStoreError(f"the name {name!r} is reserved for the audit log", "choose another name")
        if role not in ROLES:
            raise KeyStoreError(f"there is no role {role!r}", f"use {' or '.join(ROLES)}")
        with self._locked():
            keys = self.read()
            if any(key.name == name for key in keys):
                raise KeyStoreError(
                    f"there is a key {name!r} already", f"`service-manager key revoke {name}` first"
                )
            if len(keys) >= _MAX_KEYS:
                raise KeyStoreError(f"there are {len(keys)} keys already", "revoke unused keys")
            new_key = make_key()
            self._write((*keys, Key(name, role, key_hash(new_key), at)))
        return new_key

    def revoke(self, name: str) -> int:
        """Remove a key, durably, and return the number of keys left.

        Raises:
            KeyStoreError: there is no such key, or the file can't be changed.
        """
        with self._locked():
            keys = self.read()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                known = ", ".join(key.name for key in keys)
                raise KeyStoreError(
                    f"there is no key {name!r}", f"the keys are: {known}" if known else "there are no keys"
                )
            self._write(left)
        return len(left)

    def _write(self, keys: tuple[Key, ...]) -> None:
        entries = [{**key._asdict(), "digest": key.digest.hex()} for key in keys]
        content = json.dumps({"schema": _SCHEMA, "keys": entries}, indent=1)
        try:
            write_file(self.path, f"{content}\n".encode())
        except OSError as error:
            raise KeyStoreError(f"{self.path} can't be written: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            mkdir_private(self._directory)
            descriptor = open_private(self._directory / _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise KeyStoreError(
                f"{self._directory} can't be written: {error.strerror}",
                "run it as the user that the daemon runs as, or with sudo",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parsed(content: bytes) -> tuple[Key, ...]:
    document = load_json(content)
    if document["schema"] != _SCHEMA:
        raise ValueError(f"schema {document['schema']} is not supported")
    return tuple(_key(entry) for entry in document["keys"])


def _key(entry: dict[str, object]) -> Key:
    key = Key(
        str(entry["name"]),
        str(entry["role"]),
        bytes.fromhex(str(entry["digest"])),
        float(str(entry["created_at"])),
    )
    if key.role not in ROLES or len(key.digest) != hashlib.sha256().digest_size:
        raise ValueError(f"key {key.name!r} has an invalid role or digest")
    return key


class KeyRing:
    """The valid keys of a running daemon: the keys of the file, and the key of the environment.

    Reads the file again after a change, which it notices on use, at most four times a second. A file that
    can't be read or is damaged fails closed: none of its keys is valid, and a key is still required.
    ``environment`` is the key of the daemon's environment, empty if none. ``always`` requires a key even if
    no key exists. Without ``state_dir`` there is no file. ``clock`` returns monotonic seconds.
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
        self._environment_keys = (Key(ENVIRONMENT, OPERATOR, key_hash(environment)),) if environment else ()
        self._always = always
        self._clock = clock
        self._checked_at = float("-inf")
        self._signature: tuple[int, ...] | None = None
        self._file_keys: tuple[Key, ...] = ()
        self._damaged = False

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return bool(self._always or self._current()) or self._damaged

    @property
    def empty(self) -> bool:
        """Whether there is no key, and no damaged file that may hold one."""
        return not self._current() and not self._damaged

    def find(self, key: str) -> Key | None:
        """Return the valid key that matches; None if it is unknown or revoked.

        Compares with every key in constant time.
        """
        return self.find_by_digest(key_hash(key))

    def find_by_digest(self, digest: bytes) -> Key | None:
        """Return the valid key with this digest; None if it is unknown or revoked."""
        match = None
        for key in self._current():
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match

    def _current(self) -> tuple[Key, ...]:
        now = self._clock()
        if self._file is not None and now - self._checked_at >= _CHECK_INTERVAL:
            self._checked_at = now
            self._reload_if_changed(self._file)
        return (*self._environment_keys, *self._file_keys)

    def _reload_if_changed(self, file: KeyFile) -> None:
        try:
            status = file.path.stat()
            signature: tuple[int, ...] | None = (
                status.st_ino,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_size,
            )
        except FileNotFoundError:
            signature = None
        except OSError as error:
            signature = (error.errno or -1,)
        if signature == self._signature:
            return
        try:
            self._file_keys, self._damaged = file.read(), False
            self._signature = signature
        except KeyStoreError as error:
            if isinstance(error.__cause__, OSError) and is_transient(error.__cause__):
                # A transient failure is not about the file: keep the last keys until the next check.
                return
            self._signature = signature
            self._file_keys, self._damaged = (), True
            extra = {"error": str(error)}
            log.error("the API keys can't be read; none of them is valid", extra=extra)  # noqa: TRY400 - no bug
