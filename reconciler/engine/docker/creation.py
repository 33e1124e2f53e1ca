"""Decides how to call Compose so that it creates what is required and changes nothing else. Pure.

Compose removes containers beyond the requested number, and recreates all containers of a service or none. So
the number is never below what Compose sees, and containers that must stay are hidden from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from reconciler.model.observed import Action, Command
from reconciler.model.stack import Stack

Here = Mapping[str, Mapping[str, int]]
"""By service the ids of its containers, each with the number of its replica."""


class Creation(NamedTuple):
    """One call: ``scale`` is the number of containers of each service after it.

    ``hidden`` are the ids of containers that Compose must not see, ``before`` those that existed before.
    """

    services: tuple[str, ...]
    recreate: bool
    scale: Mapping[str, int]
    hidden: frozenset[str]
    before: Here

    def is_done(self, service: str, now: Mapping[str, int]) -> bool:
        """Whether all containers that the call should create for a service exist now."""
        if not self.recreate:
            return len(now) >= self.scale[service]
        return len(now.keys() - self.before.get(service, {}).keys()) >= self.scale[service]


def creation(command: Command, stack: Stack, here: Here) -> Creation:
    """Return the call for a CREATE or RECREATE. It has no services if all containers to replace are gone."""
    if command.action is Action.CREATE:
        scale = {
            name: _complete(stack.services[name].replicas, here.get(name, {})) for name in command.services
        }
        return Creation(command.services, False, scale, frozenset(), here)
    hidden: set[str] = set()
    scale = {}
    for name in command.services:
        ids = here.get(name, {}).keys()
        replaced = ids & set(command.replaces) if command.replaces else ids
        hidden |= ids - replaced
        # A service without any container is created; with other replicas left, that would add one.
        if replaced or not ids:
            scale[name] = max(1, len(replaced))
    hidden = {id_ for id_ in hidden if any(id_ in here.get(name, {}) for name in scale)}
    return Creation(tuple(scale), True, scale, frozenset(hidden), here)


def _complete(wanted: int, here: Mapping[str, int]) -> int:
    # The second container of an interrupted recreation does not count as another replica.
    return max(len(here), max(1, wanted) + len(here) - len(set(here.values())))
