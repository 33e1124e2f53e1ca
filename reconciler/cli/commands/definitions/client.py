"""Commands that call the daemon. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command
from reconciler.cli.options.common_options import (
    CHANGE,
    CLIENT,
    GROUP_EXIT,
    GROUPS,
    QUERY,
    READ_EXITS,
    READING,
    USAGE_EXIT,
)
from reconciler.cli.options.parameters import Argument, Option

NO_WAIT = Option("--no-wait", "return as soon as the change is accepted")
TIMEOUT = Option(
    "--timeout",
    "longest time to watch, in seconds or as 5m (default: 300)",
    "SECONDS",
    option_types.seconds,
    300.0,
)
CHANGE_EXITS = (
    ("0", "converged (with --no-wait: accepted)"),
    ("1", "refused, failed, or no answer from the daemon"),
    ("3", "not converged within --timeout; the change continues"),
    GROUP_EXIT,
    ("130", "interrupted with Ctrl-C; the change continues"),
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
        arguments=(GROUPS,),
        options=(*options, NO_WAIT, TIMEOUT, *READING),
        examples=examples,
        exits=CHANGE_EXITS,
    )


_FORCE_START = Option("--force", "start even if a group that it depends on is off")
_FORCE_STOP = Option("--force", "stop even if groups that are on depend on it")

CLIENTS: tuple[Command, ...] = (
    Command(
        name="status",
        section=QUERY,
        summary="show groups and services",
        description=(
            "Show the desired and the observed state of each group and service, and why they differ. With "
            "GROUP, show that group in more detail."
        ),
        handler="status:status",
        arguments=(
            Argument("GROUP", "show only this group, in detail (default: all groups)", "?", "groups"),
        ),
        options=READING,
        examples=(
            ("status", "the whole stack"),
            ("status kafka", "one group"),
            ("status --output json | jq -e .converged", "in a script: exit code 0 if converged"),
        ),
        exits=READ_EXITS,
    ),
    Command(
        name="groups",
        section=QUERY,
        summary="list groups, their services and dependencies",
        description=(
            "List every group with its services, memory estimate and dependencies. These are the names that "
            "start, stop and restart take."
        ),
        handler="status:groups",
        options=READING,
        examples=(("groups", "all groups of stack.yaml"),),
        exits=READ_EXITS,
    ),
    Command(
        name="drift",
        section=QUERY,
        summary="list differences between desired and observed",
        description=(
            "List the differences between the files and the containers, by kind. A pending difference is "
            "a change that is not carried out yet; any other was made outside Service Manager."
        ),
        handler="status:drift",
        options=READING,
        examples=(
            ("drift", "all differences"),
            ("drift -o json | jq '.drift[] | select(.pending | not)'", "only drift, no pending changes"),
        ),
        exits=READ_EXITS,
    ),
    Command(
        name="progress",
        section=QUERY,
        summary="show the progress or the result of a generation",
        description=(
            "Show the steps of one generation: state, attempts and errors. Every accepted change of desired "
            "state is a generation."
        ),
        handler="progress:progress",
        arguments=(
            Argument(
                "GENERATION",
                "number of the generation (default: the newest)",
                "?",
                convert=option_types.number,
            ),
        ),
        options=(
            Option(
                "--wait",
                "longest time to wait for the end of the generation, in seconds or as 5m, at most 600 s "
                "(default: no wait)",
                "SECONDS",
                option_types.parse_timeout,
            ),
            *READING,
        ),
        examples=(
            ("progress", "progress of the newest generation"),
            ("progress 41 --wait 60 -o json | jq -r .state", "prints converged, degraded or superseded"),
        ),
        exits=READ_EXITS,
    ),
    Command(
        name="logs",
        section=QUERY,
        summary="print the log of a service",
        description=(
            "Print the last log lines of a service's container. The daemon reads the log, so access to the "
            "engine is not needed. With --follow, print new lines until the container ends or Ctrl-C."
        ),
        handler="logs:logs",
        arguments=(Argument("SERVICE", "name of a service in the Compose files"),),
        options=(
            Option(
                "--tail", "number of last lines to print (default: 100)", "LINES", option_types.lines, 100
            ),
            Option("--follow", "print new lines as they are logged"),
            Option("--previous", "print the log of the previous container or run instead"),
            *READING,
        ),
        examples=(
            ("logs kafka", "the last hundred lines"),
            ("logs kafka --previous", "the log from before it failed or was recreated"),
            ("logs kafka --follow --tail 0 | grep ERROR", "new lines only"),
        ),
        exits=(
            ("0", "printed, or ended with Ctrl-C while following"),
            ("1", "no such service, no container, no answer from the daemon, or the log broke off"),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="watch",
        section=QUERY,
        summary="watch the whole stack live",
        description=(
            "Show groups and services as they change, with memory, drift and errors, until q or Ctrl-C. "
            "If the output is not a terminal, print one line per change."
        ),
        handler="watch:watch",
        options=CLIENT,
        examples=(
            ("watch", "full screen"),
            ("watch | tee -a changes.log", "one line per change"),
        ),
        exits=(("0", "ended with q or Ctrl-C"), ("1", "no answer from the daemon"), USAGE_EXIT),
    ),
    _change(
        "start",
        (_FORCE_START, Option("--with-dependencies", "also start the groups that it depends on")),
        "switch groups on and watch them start",
        "Set groups to on in groups.yaml and show the progress until every service is ready. If a group that "
        "it depends on is off, the request is refused unless --with-dependencies or --force is given.",
        ("start kafka", "start one group and watch"),
        ("start search --with-dependencies", "start the groups that it needs, too"),
        ("start kafka storage --timeout 60 || echo 'not yet'", "in a script"),
    ),
    _change(
        "stop",
        (_FORCE_STOP, Option("--with-dependents", "also stop the groups that depend on it")),
        "switch groups off and watch them stop",
        "Set groups to off in groups.yaml and show the progress until their containers are stopped. If other "
        "groups depend on it, the request is refused unless --with-dependents or --force is given. Volumes "
        "are kept.",
        ("stop optional", "stop one group and watch"),
        ("stop kafka --with-dependents", "stop the groups that need it, too"),
        ("stop search --no-wait", "return at once"),
    ),
    _change(
        "restart",
        (),
        "restart the containers of groups",
        "Restart all containers of groups, in dependency order, and show the progress. Sets restarted_at in "
        "groups.yaml. A group that is off is refused.",
        ("restart alerts", "restart one group and watch"),
    ),
    _change(
        "accept",
        (),
        "carry out changes that are held back",
        "Carry out the changes that wait in groups with `on_change: report`. Later changes wait again. Sets "
        "accepted_at in groups.yaml. `drift` lists the changes that wait.",
        ("accept monitoring", "carry out the changes of one group and watch"),
    ),
)
