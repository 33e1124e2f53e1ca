"""Commands about earlier desired states, and the directory as a git work tree. Data only."""

from __future__ import annotations

from reconciler.commands import convert
from reconciler.commands.shared import ASK, CHANGE, READING, USAGE_EXIT
from reconciler.commands.spec import Argument, Command, Option
from reconciler.commands.table_client import CHANGE_EXITS, NO_WAIT, TIMEOUT

HISTORY: tuple[Command, ...] = (
    Command(
        name="rollback",
        section=CHANGE,
        summary="go back to an earlier desired state",
        description=(
            "Shows what going back to a generation or git commit would change, and does it: the files of "
            "then come back byte for byte as a new generation, with git as a new commit. It asks on a "
            "terminal only. Without a name: the generation before the one that holds. Needs no git."
        ),
        handler="history:rollback",
        arguments=(
            Argument("TARGET", "a generation, or a git commit (7 digits or more); else the one before", "?"),
        ),
        options=(Option("--yes", "do not ask"), NO_WAIT, TIMEOUT, *READING),
        examples=(
            ("rollback", "undo the last change, whoever made it"),
            ("rollback 41", "back to a generation; `history` lists them"),
            ("rollback 3f9c2ab --yes", "back to a git commit, without a question"),
        ),
        exits=CHANGE_EXITS,
    ),
    Command(
        name="history",
        section=ASK,
        summary="list earlier desired states: who, when, what, how it ended",
        description=(
            "Lists every generation of desired state that is kept: who made it, when and why, what it "
            "changed and how it ended; the newest come last. Any of them can be given to rollback."
        ),
        handler="history:history",
        options=(
            Option("--limit", "generations at the most; 20", "COUNT", convert.count, 20),
            Option("--before", "only generations before this one", "GENERATION", convert.number),
            *READING,
        ),
        examples=(
            ("history", "the last twenty"),
            ("history -o json | jq '.entries[] | select(.author == \"ann\")'", "for a program"),
        ),
        exits=(("0", "answered"), ("1", "the daemon can't be asked, or refused"), USAGE_EXIT),
    ),
)
