"""What tests of the loop stand on: stacks, a simulated engine, and time that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from reconciler.engine.simulated import Behaviour, Mischief
from reconciler.stack import Stack
from tests.builders import a_stack, desire, service
from tests.recorder import Bench, Recorder, bench
from tests.virtual import run_virtually

DB = service("db", check=True)
TIERS = a_stack({"main": [DB, service("app", "db:healthy"), service("web", "app")]})
ONE = a_stack({"main": [service("kafka")]})


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        run_virtually(test(*args, **kwargs))

    return run


async def up(stack: Stack, *on: str, **fields: Any) -> Bench:
    """A bench that converged with these groups on."""
    b = bench(stack, **fields)
    b.want(desire(stack, *(on or stack.groups)))
    await b.converged()
    return b


def engine(mischief: Mischief | None = None, **behaviours: Behaviour) -> Recorder:
    return Recorder(behaviours, mischief=mischief)
