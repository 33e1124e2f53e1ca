"""Commands for API keys and the audit log. Data only."""

from __future__ import annotations

from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command
from reconciler.cli.options.common_options import (
    CLIENT,
    DAEMON,
    DONE_EXITS,
    NEAREST_STATE_DIR,
    OUTPUT,
    QUERY,
    USAGE_EXIT,
)
from reconciler.cli.options.parameters import Argument, Option, Word

RECORDS: tuple[Command, ...] = (
    Command(
        name="key",
        section=DAEMON,
        summary="add, list and revoke API keys",
        description=(
            "Add, list and revoke the API keys for REST, CLI and dashboard. Once a key exists, every request "
            "needs one. A running daemon applies a change within one second. A new key is printed once, on "
            "the last line; only its digest is stored."
        ),
        handler="key:key",
        arguments=(
            Argument(
                "ACTION", "add, list or revoke", convert=Word("unknown action {}", "add", "list", "revoke")
            ),
            Argument("NAME", "name of the key: the person or program that uses it", "?"),
        ),
        options=(
            Option(
                "--role",
                "for add: viewer (reads) or operator (reads and changes) (default: viewer)",
                "viewer|operator",
                option_types.one_of("viewer", "operator"),
                "viewer",
                complete="viewer operator",
            ),
            NEAREST_STATE_DIR,
            OUTPUT,
        ),
        examples=(
            ("key add ann --role operator", "a key that may change things"),
            ("key add wallboard > wallboard.key", "a key that only reads, written to a file"),
            ("key list", "all keys with role and date"),
            ("key revoke ann", "this key is no longer accepted"),
        ),
        exits=DONE_EXITS,
    ),
    Command(
        name="audit",
        section=QUERY,
        summary="show who did what, or verify the audit log",
        description=(
            "List changes, refused requests and the daemon's actions on containers, newest last: who, when, "
            "from where, why and with what result. With --verify, check the chain of entries in the state "
            "directory (no daemon needed) and report every entry that was changed or removed."
        ),
        handler="audit:audit",
        options=(
            Option(
                "--limit",
                "largest number of entries, up to 1000 (default: 100)",
                "COUNT",
                option_types.parse_count,
                100,
            ),
            Option("--before", "only entries older than this entry", "ID", option_types.number),
            Option("--group", "only entries about this group", "GROUP"),
            Option("--action", "only entries with this action, such as stop or container_start", "ACTION"),
            Option("--user", "only entries of this user: name of a key, file, loop or anonymous", "USER"),
            Option("--verify", "verify the whole audit log on disk; no daemon needed"),
            NEAREST_STATE_DIR,
            OUTPUT,
            *CLIENT,
        ),
        examples=(
            ("audit", "the last hundred entries"),
            ("audit --group kafka --user loop", "what the daemon did to one group, and why"),
            ("audit --action stop -o json | jq '.entries[].user'", "for a program"),
            ("audit --verify", "check that no entry was changed or removed"),
        ),
        exits=(
            ("0", "answered; with --verify: intact"),
            ("1", "refused, or no answer from the daemon; with --verify: broken or missing"),
            USAGE_EXIT,
        ),
    ),
)
