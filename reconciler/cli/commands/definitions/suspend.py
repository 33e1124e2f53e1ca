"""Commands that take the daemon's hands off, and put them on again. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.common_options import CHANGE, READING
from reconciler.cli.options.spec import Argument, Command, Option

_GROUPS = Argument(
    "GROUP", "name of a group in stack.yaml; several are changed one after the other", "+", "groups"
)
_EXITS = (
    ("0", "accepted"),
    ("1", "refused, or the daemon can't be asked"),
    ("64", "the command line can't be understood, or there is no such group"),
)

SUSPENSIONS: tuple[Command, ...] = (
    Command(
        name="suspend",
        section=CHANGE,
        summary="hands off groups: report drift, repair nothing",
        description=(
            "Sets suspend in groups.yaml, through the daemon: nothing is started, stopped or repaired in "
            "these groups until the time given, or until `resume`. They may be switched meanwhile; that is "
            "carried out afterwards."
        ),
        handler="suspend:suspend",
        arguments=(_GROUPS,),
        options=(
            Option(
                "--until",
                "when it ends by itself: a time, or how long, such as 2h",
                "TIME",
                option_types.parse_time_option,
            ),
            Option("--reason", "why, for whoever wonders", "TEXT"),
            *READING,
        ),
        examples=(
            ("suspend alerts --until 2h --reason 'camera work'", "for two hours"),
            ("suspend search --until 2026-11-24T06:00:00Z", "until the morning"),
        ),
        exits=_EXITS,
    ),
    Command(
        name="resume",
        section=CHANGE,
        summary="end the suspension of groups",
        description=(
            "Takes suspend out of groups.yaml, through the daemon. What was switched meanwhile is carried "
            "out at once, and what has drifted is repaired."
        ),
        handler="suspend:resume",
        arguments=(_GROUPS,),
        options=READING,
        examples=(("resume alerts", "hands on again"),),
        exits=_EXITS,
    ),
)
