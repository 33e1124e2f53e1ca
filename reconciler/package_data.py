"""Locates the two folders that ship with the code: the example stack and the dashboard.

In a checkout (and an editable install) they are folders at its top level. In a wheel they are inside this
package, under names that ``pyproject.toml`` maps. Only this module knows the difference.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def desired_state() -> Path:
    """Return the example desired state to copy from; read-only in an installation for all users."""
    return _folder("shipped_desired_state", "desired-state")


def dashboard() -> Path:
    """Return the folder of the dashboard's files."""
    return _folder("shipped_dashboard", "dashboard")


def _folder(in_wheel: str, in_checkout: str) -> Path:
    installed = _PACKAGE / in_wheel
    return installed if installed.is_dir() else _PACKAGE.parent / in_checkout
