"""Commands about earlier desired states, and the directory as a git work tree. Data only."""

from __future__ import annotations

from reconciler.cli.commands.definitions.client import CHANGE_EXITS, NO_WAIT, TIMEOUT
from reconciler.cli.options import option_types
from reconciler.cli.options.common_options import (
    ASK,
    CHANGE,
    COMPOSE_FILE,
    DESIRED_STATE,
    ENGINE,
    NEAREST_STATE_DIR,
    OFFLINE,
    OUTPUT,
    READING,
    USAGE_EXIT,
)
from reconciler.cli.options.spec import Argument, Command, Option

GIT_RUN: tuple[Option, ...] = (
    Option(
        "--git-url",
        "fetch desired state from this git repository into the --desired-state directory (pull mode)",
        "URL",
        option_types.text,
        "",
    ),
    Option("--git-branch", "the branch that is fetched; main", "NAME", option_types.text, "main"),
    Option(
        "--git-path",
        "the folder in the repository that holds stack.yaml; its top",
        "FOLDER",
        option_types.folder_within,
        "",
    ),
    Option("--git-interval", "seconds between fetches; 60", "SECONDS", option_types.seconds, 60.0),
    Option(
        "--git-verify",
        "take a commit only if signed with a key in this file: SSH allowed signers, or PGP public keys",
        "FILE",
        option_types.path,
        None,
        complete="files",
    ),
    Option(
        "--git-writes",
        "what becomes of changes made over REST in pull mode: push them back, or refuse them; push",
        "push|refuse",
        option_types.one_of("push", "refuse"),
        "push",
        complete="push refuse",
    ),
    Option(
        "--git-rewritten",
        "where the branch was rewritten elsewhere (reset, amend, rebase): follow it, or stop with a message; "
        "follow",
        "follow|stop",
        option_types.one_of("follow", "stop"),
        "follow",
        complete="follow stop",
    ),
    Option(
        "--git-webhook-secret",
        "file with the secret of POST /services/hooks/git, which fetches at once",
        "FILE",
        option_types.path,
        None,
        complete="files",
    ),
    Option("--git-commit-edits", "commit edits made by hand in a git work tree by itself"),
)

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
            Option("--limit", "generations at the most; 20", "COUNT", option_types.parse_count, 20),
            Option("--before", "only generations before this one", "GENERATION", option_types.number),
            *READING,
        ),
        examples=(
            ("history", "the last twenty"),
            ("history -o json | jq '.entries[] | select(.author == \"ann\")'", "for a program"),
        ),
        exits=(("0", "answered"), ("1", "the daemon can't be asked, or refused"), USAGE_EXIT),
    ),
    Command(
        name="git",
        section=OFFLINE,
        summary="make the directory a git work tree to push to; commit hand edits",
        description=(
            "init makes a directory a repository that can be pushed to, or adopts one: what is pushed is "
            "checked with the files beside it before it is accepted, and the pusher sees every mistake. "
            "commit commits what was edited by hand; log lists commits with their generations."
        ),
        handler="git:git",
        arguments=(
            Argument("ACTION", "init, commit or log", "", "init commit log"),
            Argument("DIR", "the directory; else as --desired-state", "?", "dirs"),
        ),
        options=(
            Option("--message", "for commit: what was done and why", "TEXT", default=""),
            Option("--limit", "for log: commits at the most; 20", "COUNT", option_types.parse_count, 20),
            DESIRED_STATE,
            NEAREST_STATE_DIR,
            COMPOSE_FILE,
            ENGINE,
            OUTPUT,
        ),
        examples=(
            ("git init /etc/service-manager/desired-state", "ready to be pushed to"),
            ("git commit --message 'Web needs more memory'", "what was edited on the box itself"),
            ("git log", "commits, and what became of them"),
        ),
        exits=(("0", "done"), ("1", "not done, and why"), USAGE_EXIT),
    ),
)
