"""The digest that identifies file content."""

from __future__ import annotations

import hashlib


def digest(content: bytes) -> str:
    """Return the SHA-256 of the content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
