"""The result of a check of ``service-manager doctor``."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, PROBLEM = "ok", "warn", "problem"


class Check(NamedTuple):
    """One finding. ``state`` is ok, warn or problem; ``remedy`` says what to do, empty if all is well."""

    name: str
    state: str
    message: str
    remedy: str = ""
