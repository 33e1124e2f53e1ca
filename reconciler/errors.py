"""Every error that this project raises on purpose.

    ServiceManagerError
    ├── InvalidDesiredState      the files can't be used as they are; carries every Mistake found
    ├── WriteRefused             a write to desired state that is not carried out (HTTP 4xx)
    │   └── NoSuchGroup          names a group that stack.yaml does not have (HTTP 404)
    ├── NotReadableNow           a file can't be read at the moment; says nothing about what is in it
    ├── AlreadyRunning           another daemon holds this directory
    └── EngineError              what came back from a container engine
        ├── EngineUnavailable    no answer at all: refused, cut off, timed out before it was sent
        ├── OutcomeUnknown       the call was sent and no answer came: look before trying again
        ├── StepFailed           the engine said no; worth another try after a back-off
        │   ├── StepImpossible   will fail in the same way until its inputs change
        │   └── BatchFailed      some of the services that one step was for; says which
        └── Gone                 the container the step was meant for is no longer as it was seen

Two kinds matter to the loop: ``OutcomeUnknown`` and ``EngineUnavailable`` say nothing about the
service, so they count no failed attempt; ``StepFailed`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ServiceManagerError(Exception):
    """The root, for callers that want to catch all of ours and nothing else."""


class Mistake(NamedTuple):
    """One thing wrong with a file, for a person to mend. Lines and columns count from 1; 0: unknown."""

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
    """The desired-state directory is rejected whole; ``mistakes`` has all that was found in it."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class WriteRefused(ServiceManagerError):
    """A write that is not carried out. ``reason`` is a stable word, ``remedy`` what to do instead."""

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
    """A file can't be read for a reason that passes (no descriptor left, a disk's error): try again."""


class AlreadyRunning(ServiceManagerError):
    """Another daemon holds the desired-state directory or the state directory."""


class EngineError(ServiceManagerError):
    """Anything a container engine did not do. ``reason`` is a stable word for programs."""

    def __init__(self, message: str, reason: str = "engine_error") -> None:
        super().__init__(message)
        self.reason = reason


class EngineUnavailable(EngineError):
    """The engine could not be asked: no socket, connection refused, too slow to answer a read."""

    def __init__(self, message: str, reason: str = "engine_unreachable") -> None:
        super().__init__(message, reason)


class OutcomeUnknown(EngineError):
    """The call went out and its answer did not come back, so it may or may not have happened."""

    def __init__(self, message: str, reason: str = "outcome_unknown") -> None:
        super().__init__(message, reason)


class StepFailed(EngineError):
    """The engine refused or failed; the same step may succeed later."""

    def __init__(self, message: str, reason: str = "step_failed") -> None:
        super().__init__(message, reason)


class PermanentStepFailure(StepFailed):
    """Fails in the same way until an input changes (an image that no registry has, say)."""


class BatchFailed(StepFailed):
    """One step for several services failed for those in ``failed`` and was carried out for the others."""

    def __init__(self, failed: Mapping[str, StepFailed]) -> None:
        message = "; ".join(f"{service}: {error}" for service, error in failed.items())
        super().__init__(message, "batch_failed")
        self.failed = failed


class ContainerGone(EngineError):
    """The step named a container that is no longer there, or no longer what was seen: look again."""

    def __init__(self, message: str, reason: str = "gone") -> None:
        super().__init__(message, reason)
