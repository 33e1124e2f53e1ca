"""The port to a container engine, and its adapters. An adapter observes and acts; it never sees a plan.

``registry`` is the only module that knows the adapters: ``docker`` calls a Docker Engine, ``podman`` is its
flavour for Podman, ``compose`` runs Docker Compose, ``simulated`` is an engine in memory with scripted
faults. One contract suite (``tests/engine/test_contract.py``) runs against all engines, so that the
simulation can't diverge from real ones. May import ``model``, ``host`` and ``errors``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from reconciler.errors import ServiceManagerError
from reconciler.model.capabilities import Capabilities
from reconciler.model.diagnosis import Check
from reconciler.model.observed import Command, Container, EngineInfo, LeftBehind, ObservedState, Usage
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Stack


class Engine(Protocol):
    """A container engine, as the loop uses it. No method blocks the event loop.

    All methods raise ``EngineUnavailable`` if the engine does not answer within their own deadline; an engine
    that hangs delays only its caller, by that deadline.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do besides the actions that every engine has; constant."""
        ...

    async def info(self) -> EngineInfo:
        """Return the engine's identity; never cached."""
        ...

    async def observe(self, stack: Stack, *, full: bool = False) -> ObservedState:
        """Observe all containers of the stack's project once.

        Costs one call if nothing changed since the last observation; ``full`` inspects everything and lists
        images again. If a part fails, the observation has ``complete=False``. A container that is absent from
        a complete observation does not exist.
        """
        ...

    async def left_behind(self, stack: Stack, former: str = "") -> tuple[LeftBehind, ...]:
        """Return other projects created from the files of this stack (with another ``name:``), by name.

        ``former`` is an earlier name of the stack: its volumes count even without a container. For a stack
        with a new name only: costs one list of containers, and one of volumes per project found.
        """
        ...

    def events(self, stack: Stack) -> AsyncIterator[str]:
        """Yield a short text for the log whenever something may have changed.

        Yields once as soon as the subscription is active, so that a later observation misses nothing.
        Events are hints: they may be lost, merged or late. While a command of this daemon runs on a container
        there may be none, since the end of the command causes a pass anyway. Ends, or raises
        ``EngineUnavailable``, when the stream is lost; the caller subscribes again.
        """
        ...

    async def act(self, command: Command, stack: Stack) -> str:
        """Execute one command; returns after the engine reported success.

        A command without anything to do (start of a running container, removal of a missing one) succeeds.
        Returns a warning for the user if there is one (a pre_stop hook failed), else an empty string.

        Raises:
            StepFailed: the engine refused or failed.
            PermanentStepFailure: it fails in the same way until the inputs change.
            ContainerGone: the container does not exist any more (not for STOP, KILL and REMOVE).
            OutcomeUnknown: the command was sent, but no response came within the deadline.
        """
        ...

    async def probe(self, container: Container, timeout: float) -> bool:
        """Run the container's own health check in it once; True if it succeeded.

        ``timeout`` is in seconds. False also if the check can't run or does not end in time; the state of the
        container never causes an error. Only with ``Capability.PROBE``.
        """
        ...

    async def stats(self, containers: tuple[Container, ...]) -> Mapping[str, Usage]:
        """Return the measured usage by container id, without those that can't be measured.

        Only with ``Capability.STATS``.
        """
        ...

    def logs(self, container: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[str]:
        """Yield log lines of one container, oldest first, without line ends."""
        ...

    async def close(self) -> None:
        """Close all connections and threads; active event streams end."""
        ...


class ComposeResolver(Protocol):
    """Resolves Compose files for an engine. Needs no running engine, so that files can be validated without.

    ``environment`` is what Compose interpolates from, for names of input files that contain variables.
    """

    environment: Mapping[str, str]

    async def __call__(
        self,
        files: Sequence[Path],
        directory: Path,
        project: str,
        *,
        without: str = "",
        remote: bool = False,
    ) -> Resolved:
        """Return the resolved model of the files. ``remote``: Compose may fetch included files.

        ``directory`` is the base of relative paths. ``without`` is a path prefix to remove from the result.

        Raises:
            InvalidDesiredState: the files are rejected; has the message, file and line.
            NotReadableNow: it fails for a reason that passes.
            StepFailed: the resolver is missing, or did not end in time.
        """
        ...


class Machine(Protocol):
    """What a check of ``doctor`` may use."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of the command."""
        ...

    @property
    def root(self) -> Path:
        """The root of the file system; tests use their own."""
        ...

    @property
    def engine(self) -> EngineInfo | ServiceManagerError:
        """The engine's answer to ``Engine.info``, or the error of that call."""
        ...


EngineCheck = Callable[[Machine], Check]
"""A check of ``doctor`` that an engine adds."""
