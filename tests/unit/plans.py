"""What tests of the plan stand on: stacks, containers, and the plan as text."""

from __future__ import annotations

from typing import Any

from reconciler.backoff import Failure
from reconciler.desired import Desired
from reconciler.drift import inputs_of
from reconciler.ledger import Ledger
from reconciler.observed import Container, Observed, State
from reconciler.stack import Stack
from tests.builders import a_stack, container, desire, look, planned, service

DB = service("db", check=True)
APP = service("app", "db:healthy")
WEB = service("web", "app")
TIERS = a_stack({"main": [DB, APP, WEB]})
ON = desire(TIERS, "main")
OFF = desire(TIERS)

STRONG = a_stack({"base": [DB, service("zoo")], "top needs base:ready": [service("api")]})
WEAK = a_stack({"base": [DB, service("zoo")], "top needs base": [service("api")]})

ALONE = service("kafka")
ONE = a_stack({"main": [ALONE]})
ONE_ON = desire(ONE, "main")


def text(stack: Stack, desired: Desired, *containers: Container, ledger: Ledger | None = None) -> str:
    return str(planned(stack, desired, look(stack, *containers), ledger))


def failing(stack: Stack, desired: Desired, name: str, attempts: int = 2, due: float = 1_010.0) -> Ledger:
    """A ledger in which the service failed with the inputs that it has now."""
    state = desired.groups[stack.group_of[name]]
    inputs = inputs_of(stack.services[name], state, look(stack))
    return Ledger(failures={name: Failure(attempts, due, inputs, "step_failed", "no luck", 0.0)})


def made(stack: Stack, **states: State) -> list[Container]:
    return [container(s, states.get(name, State.CREATED)) for name, s in stack.services.items()]


def without_image(stack: Stack, *containers: Container) -> Observed:
    return look(stack, *containers, images={})


def alone(state: State = State.RUNNING, **fields: Any) -> Container:
    return container(ALONE, state, **fields)
