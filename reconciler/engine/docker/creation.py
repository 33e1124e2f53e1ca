"""How to call Compose so that it makes what is asked for, and leaves everything else alone. Pure.

Compose removes containers beyond the number that it is given, and recreates all containers of a service or
none. So the number is never below what it sees, and of what is not to be recreated it sees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from reconciler.model.observed import Action, Command
from reconciler.model.stack import Stack

Here = Mapping[str, Mapping[str, int]]
"""By service the ids of its containers, each with the number of its replica."""


class Creation(NamedTuple):
    """One call: ``scale`` is how many containers of each service Compose is to leave.

    ``hidden`` are the ids of containers that it must not see, ``before`` those that were there.
    """

    services: tuple[str, ...]
    anew: bool
    scale: Mapping[str, int]
    hidden: frozenset[str]
    before: Here

    def is_done(self, service: str, now: Mapping[str, int]) -> bool:
        """Whether all that the call should make of a service is there now."""
        if not self.anew:
            return len(now) >= self.scale[service]
        return len(now.keys() - self.before.get(service, {}).keys()) >= self.scale[service]


def creation(command: Command, stack: Stack, here: Here) -> Creation:
    """The call for a CREATE or RECREATE. Without a service, all that it should replace is gone."""
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
        # Where nothing is there at all, Compose makes it; of several replicas that would be another one.
        if replaced or not ids:
            scale[name] = max(1, len(replaced))
    hidden = {id_ for id_ in hidden if any(id_ in here.get(name, {}) for name in scale)}
    return Creation(tuple(scale), True, scale, frozenset(hidden), here)


def _complete(wanted: int, here: Mapping[str, int]) -> int:
    # The second container of an interrupted remake does not stand for another replica.
    return max(len(here), max(1, wanted) + len(here) - len(set(here.values())))
