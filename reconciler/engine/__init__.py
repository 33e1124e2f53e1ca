"""The port to whatever runs containers. Adapters live beside this file and know nothing of a plan.

``docker.py`` talks to a Docker Engine, ``compose.py`` runs Docker Compose for it, ``simulated.py``
is an engine in memory that obeys or misbehaves on command. One contract suite
(``tests/engine/test_contract.py``) runs against all of them, so that the simulated one can't drift
from the truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from reconciler.model.observed import Command, Container, EngineInfo, LeftBehind, ObservedState, Usage
from reconciler.model.stack import Stack


class Engine(Protocol):
    """What the loop needs of a container engine. No method blocks the event loop.

    All methods raise ``EngineUnavailable`` when the engine can't be asked, within a deadline of
    their own; an engine that hangs costs the caller that deadline and nobody else anything.
    """

    async def info(self) -> EngineInfo:
        """Who answers, asked anew."""
        ...

    async def observe(self, stack: Stack, *, full: bool = False) -> ObservedState:
        """One look at every container of the stack's project.

        Costs one call where nothing changed since the last look; ``full`` inspects everything and
        lists images again. A part that can't be had makes the whole ``complete=False`` rather than
        shorter: absence in a complete look means absence.
        """
        ...

    async def left_behind(self, stack: Stack, former: str = "") -> tuple[LeftBehind, ...]:
        """Other projects made from the files of this stack, as by another ``name:``; sorted by name.

        ``former`` is a name that the stack had: its volumes count also where no container is left. For a
        stack whose name is new; it costs one list of containers and, for each project found, one of volumes.
        """
        ...

    def events(self, stack: Stack) -> AsyncIterator[str]:
        """A reason to look again, as a short text for the log, whenever something may have changed.

        Yields once as soon as the subscription stands (so that a look after it misses nothing).
        Events are hints only: they may be lost, merged or late, and while an order of ours is at a
        container there may be none, since the end of the order is a reason of its own. Ends, or raises
        ``EngineUnavailable``, when the stream is lost; the caller subscribes anew.
        """
        ...

    async def act(self, command: Command, stack: Stack) -> str:
        """Carry out one order; returning means that the engine said it is done.

        What is done already (start of a running container, removal of an absent one) is success. Returns
        what people should know though the order succeeded (a pre_stop hook that failed), else nothing.

        Raises:
            StepFailed: the engine refused or failed.
            PermanentStepFailure: and will in the same way, until the inputs change.
            Gone: the container named is not there any more (not for STOP, KILL and REMOVE).
            OutcomeUnknown: sent, but no answer within the deadline.
        """
        ...

    async def probe(self, container: Container, timeout: float) -> bool:
        """Run the container's own health check in it once; whether it succeeded.

        ``timeout`` in seconds. False also where the check can't be run or does not end in time;
        never raises for the container's sake.
        """
        ...

    async def stats(self, containers: tuple[Container, ...]) -> Mapping[str, Usage]:
        """Measured use by container id; those that can't be measured are left out."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether its containers see the files of this host."""
        ...

    def logs(self, container: str, *, tail: int = 100, follow: bool = False) -> AsyncIterator[str]:
        """Log lines of one container, oldest first, without their line ends."""
        ...

    async def close(self) -> None:
        """Let go of every connection and thread; an event stream in use ends."""
        ...
