"""Scripts for the simulated engine: how containers behave, and what the engine does wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.engine.simulated.hooks import NO_HOOKS, HookScript
from reconciler.model.observed import Command


@dataclass(slots=True, kw_only=True)
class ContainerScript:
    """How the containers of one service behave. Times in seconds; None: never.

    ``exits_after`` counts from each start; ``crashes`` limits how often that happens. A service that others
    wait for to complete, and that has no script, ends without a command (``ONE_SHOT``). ``hooks`` is the
    outcome of its lifecycle hooks.
    """

    start_takes: float = 0.05
    ready_after: float | None = 0.0
    stop_takes: float = 0.05
    exits_after: float | None = None
    exit_code: int = 0
    crashes: int = 1_000_000_000
    memory: int = 50_000_000
    hooks: HookScript = NO_HOOKS


PLAIN = ContainerScript()

ONE_SHOT = 0.5
"""Seconds that a one-shot runs before it exits with code 0."""


@dataclass(slots=True, kw_only=True)
class FaultInjection:
    """The faults of the engine. Each is a function called per request, so a test can script any pattern.

    ``fail`` is called before a command takes effect, ``lie`` after it: both return the error to raise, None
    for none. ``stale`` returns the age of an observation in changes, ``mute`` whether an event is lost,
    ``partial`` whether an observation is incomplete.
    """

    fail: Callable[[Command], Exception | None] = lambda _: None
    lie: Callable[[Command], Exception | None] = lambda _: None
    stale: Callable[[], int] = lambda: 0
    mute: Callable[[str], bool] = lambda _: False
    partial: Callable[[], bool] = lambda: False
