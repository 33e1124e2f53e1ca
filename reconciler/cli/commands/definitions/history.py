"""Commands for earlier desired states and for git. Data only."""

from __future__ import annotations

from reconciler.cli.commands.definitions.client import CHANGE_EXITS, NO_WAIT, TIMEOUT
from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command
from reconciler.cli.options.common_options import (
    CHANGE,
    DIRECTORY,
    DONE_EXITS,
    ENGINE,
    OFFLINE,
    OUTPUT,
    QUERY,
    READ_EXITS,
    READING,
    STATE,
)
from reconciler.cli.options.parameters import Argument, Option, Word

GIT_RUN: tuple[Option, ...] = (
    Option(
        "--git-url",
        "repository to fetch desired state from, into the --desired-state directory (pull mode; default: "
        "none)",
        "URL",
        option_types.word,
        "",
    ),
    Option("--git-branch", "branch to fetch (default: main)", "NAME", option_types.word, "main"),
    Option(
        "--git-path",
        "folder of stack.yaml in the repository (default: its top)",
        "FOLDER",
        option_types.folder_within,
        "",
    ),
    Option(
        "--git-interval",
        "time between fetches, in seconds or as 5m (default: 60)",
        "SECONDS",
        option_types.seconds,
        60.0,
    ),
    Option(
        "--git-verify",
        "accept only commits signed with a key in this file: SSH allowed signers, or PGP public keys",
        "FILE",
        option_types.path,
        None,
        complete="files",
    ),
    Option(
        "--git-writes",
        "changes made over REST in pull mode: push them back or refuse them (default: push)",
        "push|refuse",
        option_types.one_of("push", "refuse"),
        "push",
        complete="push refuse",
    ),
    Option(
        "--git-rewritten",
        "if the branch was rewritten (reset, amend, rebase): follow it, or stop with an error (default: "
        "follow)",
        "follow|stop",
        option_types.one_of("follow", "stop"),
        "follow",
        complete="follow stop",
    ),
    Option(
        "--git-webhook-secret",
        "file with the secret of the webhook POST /services/hooks/git, which fetches at once",
        "FILE",
        option_types.path,
        None,
        complete="files",
    ),
    Option("--git-commit-edits", "commit manual edits in a git work tree automatically"),
)

HISTORY: tuple[Command, ...] = (
    Command(
        name="rollback",
        section=CHANGE,
        summary="go back to an earlier desired state",
        description=(
            "Show what a rollback would change, ask for confirmation (on a terminal), and carry it out. The "
            "earlier files are restored byte for byte as a new generation, and in a git work tree as a new "
            "commit. Works without git."
        ),
        handler="history:rollback",
        arguments=(
            Argument(
                "TARGET", "generation, or git commit (7 digits or more) (default: the generation before)", "?"
            ),
        ),
        options=(Option("--yes", "no confirmation"), NO_WAIT, TIMEOUT, *READING),
        examples=(
            ("rollback", "undo the last change"),
            ("rollback 41", "go back to a generation; `history` lists them"),
            ("rollback 3f9c2ab --yes", "go back to a git commit without confirmation"),
        ),
        exits=CHANGE_EXITS,
    ),
    Command(
        name="history",
        section=QUERY,
        summary="list generations: who, when, what changed, result",
        description=(
            "List the stored generations of desired state, newest last: who made each one, when and why, "
            "what changed, and the result. `rollback` can go back to each of them."
        ),
        handler="history:history",
        options=(
            Option(
                "--limit",
                "largest number of generations, up to 1000 (default: 20)",
                "COUNT",
                option_types.parse_count,
                20,
            ),
            Option("--before", "only generations older than this one", "GENERATION", option_types.number),
            *READING,
        ),
        examples=(
            ("history", "the last 20 generations"),
            ("history -o json | jq '.entries[] | select(.author == \"ann\")'", "only one author"),
        ),
        exits=READ_EXITS,
    ),
    Command(
        name="git",
        section=OFFLINE,
        summary="manage the directory with git: accept pushes, commit edits",
        description=(
            "Manage the desired-state directory with git. `init` makes it a repository that accepts pushes, "
            "or adopts an existing one: each push is validated first, and git shows every mistake to the "
            "user who pushes. `commit` commits manual edits. `log` lists commits with their generations."
        ),
        handler="git:git",
        arguments=(
            Argument(
                "ACTION",
                "init, commit or log",
                # The hook that `git init` installs runs `git hook`.
                convert=Word("unknown action {}", "init", "commit", "log", hidden=("hook",)),
            ),
            DIRECTORY,
        ),
        options=(
            Option(
                "--message",
                "for commit: commit message (default: names the edited files)",
                "TEXT",
                default="",
            ),
            Option(
                "--limit",
                "for log: largest number of commits, up to 1000 (default: 20)",
                "COUNT",
                option_types.parse_count,
                20,
            ),
            *STATE,
            ENGINE,
            OUTPUT,
        ),
        examples=(
            ("git init /etc/service-manager/desired-state", "make the directory accept pushes"),
            ("git commit --message 'Web needs more memory'", "commit edits made on this machine"),
            ("git log", "commits with generation and result"),
        ),
        exits=DONE_EXITS,
    ),
)
