"""Where the two folders that ship with the code are: the example stack and the dashboard.

In a checkout, and so with an editable install, they are folders at its top, where people edit them. In a
wheel they travel inside this package, under names that ``pyproject.toml`` maps. Whoever needs one asks
here, so that nobody else has to know which of the two it is.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def desired_state() -> Path:
    """The shipped desired state, to copy from; read-only in an installation for all users."""
    return _folder("shipped_desired_state", "desired-state")


def dashboard() -> Path:
    """The dashboard's files, to serve."""
    return _folder("shipped_dashboard", "dashboard")


def _folder(in_wheel: str, in_checkout: str) -> Path:
    installed = _PACKAGE / in_wheel
    return installed if installed.is_dir() else _PACKAGE.parent / in_checkout
