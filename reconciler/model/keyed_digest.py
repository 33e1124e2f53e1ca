"""Keyed digests of values that may be secret: without the key, guesses can't be tested against them. Pure.

A digest names its key, so that digests made with different keys (or with no key) never count as a change.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field

KEY_BYTES = 32
_NAME = 8
_DIGEST = 32
_KEYED = re.compile(rf"([0-9a-f]{{{_NAME}}}):[0-9a-f]{{{_DIGEST}}}")


@dataclass(frozen=True, slots=True)
class DigestKey:
    """An HMAC-SHA256 key of ``KEY_BYTES`` bytes; ``secret`` is excluded from the repr."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """A name that identifies the key without revealing it."""
        return self._hmac(b"name of the key")[:_NAME]

    def digest(self, *parts: str | None) -> str:
        """Return the digest of a sequence of texts; None differs from every text, also from the empty one."""
        return f"{self.name}:{self._hmac(json.dumps(parts).encode())[:_DIGEST]}"

    def _hmac(self, content: bytes) -> str:
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()


def key_name(digest: str) -> str:
    """Return the name of the key that a digest was made with; empty for a digest without a key."""
    match = _KEYED.fullmatch(digest)
    return match[1] if match else ""


def comparable(one: str, other: str) -> bool:
    """Return whether different digests mean different values: both have the same key, or none has one."""
    return key_name(one) == key_name(other)
