"""The error classes of this project.

    ServiceManagerError
    ├── InvalidDesiredState      the files are not valid; carries every Mistake
    ├── WriteRefused             a write to the desired state is rejected (HTTP 4xx)
    │   └── UnknownGroup         stack.yaml has no group of this name (HTTP 404)
    ├── NotReadableNow           a file can't be read for a passing reason
    ├── AlreadyRunning           another daemon holds this directory
    └── EngineError              a container engine reported an error
        ├── EngineUnavailable    no connection: refused, cut off, timed out before the request was sent
        ├── OutcomeUnknown       the request was sent, no response came: observe before retrying
        ├── StepFailed           the engine refused or failed; retry after a back-off
        │   ├── PermanentStepFailure   fails in the same way until an input changes
        │   └── BatchFailed      failed for some of the services of one step; names them
        └── ContainerGone        the step's container is gone or has changed since it was observed

The loop distinguishes two kinds: ``StepFailed`` counts as a failed attempt of the service;
``OutcomeUnknown`` and ``EngineUnavailable`` say nothing about the service and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ServiceManagerError(Exception):
    """The root class: catches every error of this project and no other."""


class Mistake(NamedTuple):
    """One mistake in a file, for a person to fix. Lines and columns count from 1; 0: unknown."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = self.path
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return f"{place}: {self.message}"


class InvalidDesiredState(ServiceManagerError):
    """The desired-state directory is rejected as a whole; ``mistakes`` lists all reasons."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class WriteRefused(ServiceManagerError):
    """A rejected write. ``reason`` is a stable word for programs, ``remedy`` what to do instead."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.remedy = remedy


class UnknownGroup(WriteRefused):
    """``stack.yaml`` has no group of this name."""

    def __init__(self, group: str, known: tuple[str, ...]) -> None:
        super().__init__(
            "unknown_group",
            f"there is no group {group!r}",
            f"the groups are: {', '.join(known)}" if known else "stack.yaml has no groups",
        )


class NotReadableNow(ServiceManagerError):
    """A file can't be read for a passing reason (no descriptor left, a disk error): retry."""


class AlreadyRunning(ServiceManagerError):
    """Another daemon has locked the desired-state directory or the state directory."""


class EngineError(ServiceManagerError):
    """A container engine reported an error. ``reason`` is a stable word for programs."""

    def __init__(self, message: str, reason: str = "engine_error") -> None:
        super().__init__(message)
        self.reason = reason


class EngineUnavailable(EngineError):
    """The engine can't be reached: no socket, connection refused, or a read timed out."""

    def __init__(self, message: str, reason: str = "engine_unreachable") -> None:
        super().__init__(message, reason)


class OutcomeUnknown(EngineError):
    """The request was sent and no response came, so it may or may not have taken effect."""

    def __init__(self, message: str, reason: str = "outcome_unknown") -> None:
        super().__init__(message, reason)


class StepFailed(EngineError):
    """The engine refused or failed; a retry may succeed."""

    def __init__(self, message: str, reason: str = "step_failed") -> None:
        super().__init__(message, reason)


class PermanentStepFailure(StepFailed):
    """Fails in the same way until an input changes, such as an image that no registry has."""


class BatchFailed(StepFailed):
    """A step for several services failed for those in ``failed`` and succeeded for the others."""

    def __init__(self, failed: Mapping[str, StepFailed]) -> None:
        message = "; ".join(f"{service}: {error}" for service, error in failed.items())
        super().__init__(message, "batch_failed")
        self.failed = failed


class ContainerGone(EngineError):
    """The step's container is gone or has changed since it was observed: observe again."""

    def __init__(self, message: str, reason: str = "gone") -> None:
        super().__init__(message, reason)
