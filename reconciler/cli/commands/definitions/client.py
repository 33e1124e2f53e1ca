"""Commands that talk to the daemon. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.common_options import ASK, CHANGE, CLIENT, READING, USAGE_EXIT
from reconciler.cli.options.spec import Argument, Command, Option

_GROUPS = Argument(
    "GROUP", "name of a group in stack.yaml; several are changed one after the other", "+", "groups"
)
NO_WAIT = Option("--no-wait", "return as soon as the change is accepted")
TIMEOUT = Option(
    "--timeout", "seconds to watch before giving up watching; 300", "SECONDS", option_types.seconds, 300.0
)
CHANGE_EXITS = (
    ("0", "converged (with --no-wait: accepted)"),
    ("1", "refused, failed, or the daemon can't be asked"),
    ("3", "not converged within --timeout; the change goes on"),
    ("64", "the command line can't be understood, or there is no such group"),
    ("130", "Ctrl-C: the watching ended, the change goes on"),
)
_READ_EXITS = (
    ("0", "answered"),
    ("1", "the daemon can't be asked, or refused"),
    USAGE_EXIT,
)


def _change(
    name: str, options: tuple[Option, ...], summary: str, description: str, *examples: tuple[str, str]
) -> Command:
    return Command(
        name=name,
        section=CHANGE,
        summary=summary,
        description=description,
        handler=f"lifecycle:{name}",
        arguments=(_GROUPS,),
        options=(*options, NO_WAIT, TIMEOUT, *READING),
        examples=examples,
        exits=CHANGE_EXITS,
    )


_FORCE_START = Option("--force", "start though a group that it depends on is off")
_FORCE_STOP = Option("--force", "stop though groups that are on depend on it")

CLIENTS: tuple[Command, ...] = (
    Command(
        name="status",
        section=ASK,
        summary="show groups and services",
        description=(
            "Shows what should be on, what is, and why they differ, by group and service. With the name of "
            "a group only that one, in more detail."
        ),
        handler="status:status",
        arguments=(Argument("GROUP", "only this group", "?", "groups"),),
        options=READING,
        examples=(
            ("status", "the whole stack"),
            ("status kafka", "one group"),
            ("status --output json | jq -e .converged", "in a script: is all well?"),
        ),
        exits=_READ_EXITS,
    ),
    Command(
        name="groups",
        section=ASK,
        summary="list groups, their services and dependencies",
        description=(
            "Lists every group with its services, memory estimate and what it depends on. This is what can "
            "be given to start, stop and restart."
        ),
        handler="status:groups",
        options=READING,
        examples=(("groups", "what there is to switch"),),
        exits=_READ_EXITS,
    ),
    Command(
        name="drift",
        section=ASK,
        summary="list differences between desired and observed",
        description=(
            "Lists every difference between the files and the containers, by kind. A pending one is a "
            "change not carried out yet; any other moved by itself, or somebody moved it."
        ),
        handler="status:drift",
        options=READING,
        examples=(
            ("drift", "what differs now"),
            ("drift -o json | jq '.drift[] | select(.pending | not)'", "only what moved by itself"),
        ),
        exits=_READ_EXITS,
    ),
    Command(
        name="progress",
        section=ASK,
        summary="show how far a generation is, or how it ended",
        description=(
            "Every accepted change of desired state is a generation. Shows the steps of one: what was done, "
            "how often it was tried, what went wrong. Without a number, those of the newest."
        ),
        handler="progress:progress",
        arguments=(Argument("GENERATION", "its number; the newest unless given", "?"),),
        options=(
            Option(
                "--wait",
                "seconds to wait for its end first, at most 600",
                "SECONDS",
                option_types.parse_timeout,
            ),
            *READING,
        ),
        examples=(
            ("progress", "of the newest generation"),
            ("progress 41 --wait 60 -o json | jq -r .state", "converged, degraded or superseded"),
        ),
        exits=_READ_EXITS,
    ),
    Command(
        name="logs",
        section=ASK,
        summary="print what a service logs",
        description=(
            "Prints the last lines of the log of a service's container, through the daemon: no right to use "
            "the engine is needed. With --follow it goes on until the container ends, or Ctrl-C."
        ),
        handler="logs:logs",
        arguments=(Argument("SERVICE", "name of a service in the Compose files"),),
        options=(
            Option("--tail", "how many of the last lines; 100", "LINES", option_types.lines, 100),
            Option("--follow", "go on with what comes"),
            Option("--previous", "what was kept of the container before, when it ended or was remade"),
            *READING,
        ),
        examples=(
            ("logs kafka", "the last hundred lines"),
            ("logs kafka --previous", "what it said before it failed or was remade"),
            ("logs kafka --follow --tail 0 | grep ERROR", "what is logged from now on"),
        ),
        exits=(
            ("0", "to the end, or Ctrl-C while following"),
            ("1", "the daemon can't be asked, there is no such service or no container, or it broke off"),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="watch",
        section=ASK,
        summary="watch the whole stack live",
        description=(
            "Shows groups and services as they change, with memory, drift and errors; q or Ctrl-C ends it. "
            "Where the output is not a terminal it prints one line per change instead."
        ),
        handler="watch:watch",
        options=CLIENT,
        examples=(
            ("watch", "full screen"),
            ("watch | tee -a changes.log", "a line per change"),
        ),
        exits=(("0", "ended by q or Ctrl-C"), ("1", "the daemon can't be asked"), USAGE_EXIT),
    ),
    _change(
        "start",
        (_FORCE_START, Option("--with-dependencies", "switch on the groups that it depends on, too")),
        "switch groups on and watch them come up",
        "Sets the groups to on in groups.yaml, through the daemon, and shows their progress until all is "
        "ready. A group whose dependency is off is refused, unless --with-dependencies or --force.",
        ("start kafka", "switch on and watch"),
        ("start search --with-dependencies", "and what it needs"),
        ("start kafka storage --timeout 60 || echo 'not yet'", "in a script"),
    ),
    _change(
        "stop",
        (_FORCE_STOP, Option("--with-dependents", "switch off the groups that depend on it, too")),
        "switch groups off and watch them go down",
        "Sets the groups to off in groups.yaml, through the daemon, and shows their progress until they are "
        "down. A group that others need is refused, unless --with-dependents or --force; volumes are kept.",
        ("stop optional", "switch off and watch"),
        ("stop kafka --with-dependents", "and all that need it"),
        ("stop search --no-wait", "return at once"),
    ),
    _change(
        "restart",
        (),
        "restart the containers of groups",
        "Sets restarted_at in groups.yaml, through the daemon: containers started before that moment are "
        "stopped and started again, in order. A group that is off is refused.",
        ("restart alerts", "restart one group and watch"),
    ),
    _change(
        "accept",
        (),
        "carry out changes that are held back",
        "For groups with `on_change: report`: what differs from their files now is carried out. Sets "
        "accepted_at in groups.yaml, through the daemon; what changes later waits again. `drift` shows what "
        "is held back.",
        ("accept monitoring", "carry out what waits, and watch"),
    ),
)
