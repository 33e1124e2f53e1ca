"""Digests of values that may be secret, which nobody without the key can test guesses against. Pure.

A digest names its key, so that digests of two keys, or of a key and of none, are never taken for a change.
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
    """An HMAC-SHA256 key of ``KEY_BYTES`` bytes; ``secret`` never shows in a repr."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What tells this key from another one, without revealing it."""
        return self._hmac(b"name of the key")[:_NAME]

    def digest(self, *parts: str | None) -> str:
        """The digest of a row of texts; None differs from every text, the empty one included."""
        return f"{self.name}:{self._hmac(json.dumps(parts).encode())[:_DIGEST]}"

    def _hmac(self, content: bytes) -> str:
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()


def key_name(digest: str) -> str:
    """The name of the key that a digest was made with; empty for a digest without a key."""
    found = _KEYED.fullmatch(digest)
    return found[1] if found else ""


def comparable(one: str, other: str) -> bool:
    """Whether different digests mean different values: only if both were made with the same key, or none."""
    return key_name(one) == key_name(other)
