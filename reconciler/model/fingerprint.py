"""The fingerprint of a service's desired state, as plans compare it and the ledger keeps it."""

from __future__ import annotations

from typing import NamedTuple


class DesiredFingerprint(NamedTuple):
    """The desired state of one service, for comparing. While it is unchanged, a difference is drift.

    ``definition`` is the digest of the definition and of the contents that are copied into the container,
    ``restarted_at`` the wall time of the last restart request. Both are empty for a service that is off.
    """

    on: bool
    definition: str = ""
    replicas: int = 1
    restarted_at: float | None = None

    def text(self) -> str:
        """Return the text that the ledger stores on disk, and that fingerprints of attempts begin with."""
        on, definition, replicas, restarted_at = self
        if not on:
            return "off"
        if replicas == 1:
            return f"on {definition} {restarted_at or ''}"
        return f"on {definition} x{replicas} {restarted_at or ''}"


OFF = DesiredFingerprint(on=False)
"""The fingerprint of a service whose group is off."""


def from_text(text: str) -> DesiredFingerprint:
    """Decode the text of a fingerprint. Only the ledger on disk needs this.

    Never raises. An unknown text gives a fingerprint that no service has, so the service is compared again.
    """
    if text == "off":
        return OFF
    parts = text.split(" ")
    if parts[0] != "on" or len(parts) not in {3, 4}:
        return DesiredFingerprint(on=True, definition=text)
    try:
        replicas = int(parts[2].removeprefix("x")) if len(parts) == 4 else 1
        restarted_at = float(parts[-1]) if parts[-1] else None
    except ValueError:
        return DesiredFingerprint(on=True, definition=text)
    return DesiredFingerprint(True, parts[1], replicas, restarted_at)
