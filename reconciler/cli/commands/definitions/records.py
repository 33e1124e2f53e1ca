"""Commands about who may do what, and who did. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.common_options import ASK, CLIENT, DAEMON, NEAREST_STATE_DIR, OUTPUT, USAGE_EXIT
from reconciler.cli.options.spec import Argument, Command, Option

RECORDS: tuple[Command, ...] = (
    Command(
        name="key",
        section=DAEMON,
        summary="add, list and revoke API keys",
        description=(
            "Makes and takes away the keys that REST, CLI and dashboard are used with, in the daemon's state "
            "directory; a running daemon honours it within a second. Once there is a key, nothing is read "
            "or changed without one. A new key is printed alone on the last line, once: a digest is kept."
        ),
        handler="key:key",
        arguments=(
            Argument("ACTION", "add, list or revoke", "", "add list revoke"),
            Argument("NAME", "of the key: whose it is, or what uses it", "?"),
        ),
        options=(
            Option(
                "--role",
                "for add: viewer reads, operator changes things too; viewer unless said otherwise",
                "viewer|operator",
                option_types.one_of("viewer", "operator"),
                "viewer",
                complete="viewer operator",
            ),
            NEAREST_STATE_DIR,
            OUTPUT,
        ),
        examples=(
            ("key add ann --role operator", "a key for a person"),
            ("key add wallboard > wallboard.key", "one that reads, straight into a file"),
            ("key list", "which there are, since when"),
            ("key revoke ann", "hers opens nothing any more"),
        ),
        exits=(("0", "done"), ("1", "not done, and why"), USAGE_EXIT),
    ),
    Command(
        name="audit",
        section=ASK,
        summary="show who did what, or verify that nobody touched the record",
        description=(
            "Lists changes, refusals, and all that the daemon did to containers: who, when, from where, why "
            "and how it ended; the newest come last. With --verify it follows the chain of entries in the "
            "state directory, without a daemon, and tells every one that was changed or taken out."
        ),
        handler="audit:audit",
        options=(
            Option("--limit", "entries at the most; 100", "COUNT", option_types.parse_count, 100),
            Option("--before", "only entries older than this one", "ID", option_types.number),
            Option("--group", "only what is about this group", "GROUP"),
            Option("--action", "only this action, such as stop or container_start", "ACTION"),
            Option("--user", "only of this user: a key's name, file, loop, anonymous", "USER"),
            Option("--verify", "look through the whole chain on disk instead; asks no daemon"),
            NEAREST_STATE_DIR,
            OUTPUT,
            *CLIENT,
        ),
        examples=(
            ("audit", "the last hundred entries"),
            ("audit --group kafka --user loop", "what was done to one group, and why"),
            ("audit --action stop -o json | jq '.entries[].user'", "for a program"),
            ("audit --verify", "is the record whole?"),
        ),
        exits=(
            ("0", "answered; with --verify: whole"),
            ("1", "the daemon can't be asked, or refused; with --verify: not whole, or nothing there"),
            USAGE_EXIT,
        ),
    ),
)
