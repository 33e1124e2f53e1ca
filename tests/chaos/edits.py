"""Changes by people during faults: edit files, call REST, rebuild an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.chaos.harness import ChaosHarness
from tests.support.harness.sandbox import GROUP_NAMES, groups_yaml

# Closed sets of groups: none is blocked, so the expected state is clear.
STATES: tuple[dict[str, bool], ...] = (
    {},
    {"front": False},
    {"front": False, "extra": False},
    {"app": False, "front": False},
    {"extra": False},
    {"base": False, "app": False, "front": False, "extra": False},
)


class Edit(NamedTuple):
    """A name and an action."""

    name: str
    do: Callable[[ChaosHarness], None]


def save_groups(world: ChaosHarness) -> None:
    """Save another set of groups, as an editor does."""
    states = world.chance.choice(STATES)
    if world.account.suspended:
        states = {name: on for name, on in states.items() if name not in world.account.suspended}
    suspended = dict.fromkeys(world.account.suspended, "{state: on, suspend: true}")
    on = {name: states.get(name, True) for name in GROUP_NAMES}
    world.toggle([name for name, is_on in on.items() if is_on])
    world.account.off.update(name for name, is_on in on.items() if not is_on)
    world.save_groups(groups_yaml(**{**states, **suspended}), on)
    world.tell(f"groups.yaml: off {[name for name, is_on in on.items() if not is_on]}")


def call_rest(world: ChaosHarness) -> None:
    """Switch one group by REST."""
    group = world.chance.choice([g for g in ("front", "extra") if g not in world.account.suspended])
    verb = world.chance.choice(["start", "stop", "restart"])
    world.toggle([group])
    if verb == "stop":
        world.account.off.add(group)
    world.write(verb, group)


def change_definition(world: ChaosHarness) -> None:
    """Change a label of the one service that has dependencies and no dependents."""
    shade = f"shade-{world.chance.randrange(10**6)}"
    world.account.redefined["worker"] += 1
    world.sandbox.save("compose.yaml", world.sandbox.files["compose.yaml"].replace("blue", shade))
    world.tell(f"compose.yaml: worker is {shade}")


def change_env_file(world: ChaosHarness) -> None:
    """Change a value in the env file of a service in the middle."""
    mode = f"mode-{world.chance.randrange(10**6)}"
    world.account.redefined["api"] += 1
    world.sandbox.save("env/api.env", f"API_MODE={mode}\n")
    world.tell(f"env/api.env: {mode}")


def touch(world: ChaosHarness) -> None:
    """Save the file unchanged."""
    world.sandbox.save("compose.yaml", (world.sandbox.desired / "compose.yaml").read_bytes())
    world.tell("compose.yaml saved as it was")


EDITS = (
    Edit("groups file", save_groups),
    Edit("REST", call_rest),
    Edit("definition", change_definition),
    Edit("env file", change_env_file),
    Edit("nothing", touch),
)
