"""What an engine can do beyond the actions that every engine has."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """One optional ability of an engine.

    If an engine lacks it, the planner plans no step and the loop makes no call that needs it.

    UNPAUSE, RENAME and UPDATE are the actions of the same names. PROBE runs a container's health check on
    demand, STATS measures its memory and CPU. HOST_FILES: containers mount the files of this machine, so
    that the daemon can detect their changes.
    """

    UNPAUSE = "unpause"
    RENAME = "rename"
    UPDATE = "update"
    PROBE = "probe"
    STATS = "stats"
    HOST_FILES = "host_files"


Capabilities = frozenset[Capability]

ALL: Capabilities = frozenset(Capability)
