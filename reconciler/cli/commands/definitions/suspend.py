"""Commands that suspend and resume groups. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command
from reconciler.cli.options.common_options import CHANGE, GROUP_EXIT, GROUPS, READING
from reconciler.cli.options.parameters import Option

_EXITS = (
    ("0", "accepted"),
    ("1", "refused, or no answer from the daemon"),
    GROUP_EXIT,
)

SUSPENSIONS: tuple[Command, ...] = (
    Command(
        name="suspend",
        section=CHANGE,
        summary="suspend groups: report drift, repair nothing",
        description=(
            "Suspend groups: until the given time or `resume`, the daemon starts, stops and repairs nothing "
            "in them. Changes to these groups are accepted and carried out afterwards. Use it before a "
            "backup or another tool stops or pauses containers, which the daemon would repair. Sets "
            "suspend in groups.yaml."
        ),
        handler="suspend:suspend",
        arguments=(GROUPS,),
        options=(
            Option(
                "--until",
                "end of the suspension: a time, or a duration such as 2h (default: until resume)",
                "TIME",
                option_types.parse_time_option,
            ),
            Option("--reason", "reason that status and the dashboard show", "TEXT"),
            *READING,
        ),
        examples=(
            ("suspend alerts --until 2h --reason 'camera work'", "for two hours"),
            ("suspend storage --until 1h --reason backup", "while a backup tool stops its containers"),
            ("suspend search --until 2026-11-24T06:00:00Z", "until a given time"),
        ),
        exits=_EXITS,
    ),
    Command(
        name="resume",
        section=CHANGE,
        summary="end the suspension of groups",
        description=(
            "Resume suspended groups: changes made during the suspension are carried out and drift is "
            "repaired. Removes suspend from groups.yaml."
        ),
        handler="suspend:resume",
        arguments=(GROUPS,),
        options=READING,
        examples=(("resume alerts", "resume one group"),),
        exits=_EXITS,
    ),
)
