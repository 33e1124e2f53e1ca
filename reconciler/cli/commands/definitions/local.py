"""The command that runs the daemon, and commands that need no daemon. Data only."""

from __future__ import annotations

from reconciler.cli.commands.definitions.history import GIT_RUN
from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command
from reconciler.cli.options.common_options import (
    COMPOSE_FILE,
    DAEMON,
    DESIRED_STATE,
    DIRECTORY,
    ENGINE,
    HOST,
    OFFLINE,
    OUTPUT,
    PORT,
    STATE,
    STATE_DIR,
    USAGE_EXIT,
)
from reconciler.cli.options.parameters import Argument, Option, Word

_PRINTED = (("0", "printed"), USAGE_EXIT)

LOCAL: tuple[Command, ...] = (
    Command(
        name="run",
        section=DAEMON,
        summary="run the daemon in the foreground",
        description=(
            "Run the daemon: reconcile containers with the desired-state directory, and serve REST and the "
            "dashboard, until SIGTERM or SIGINT. Containers keep running when the daemon ends; the next run "
            "takes them over."
        ),
        handler="run:run",
        options=(
            DESIRED_STATE,
            STATE_DIR,
            HOST,
            PORT,
            Option(
                "--metrics-listen",
                "second listener that serves only /metrics, such as for Prometheus in a container (default: "
                "none)",
                "ADDRESS:PORT",
                option_types.address,
            ),
            Option(
                "--allowed-host",
                "additional host name to accept in requests, such as that of a reverse proxy; with a port, "
                "only pages at that port can write; repeatable (variable: colon-separated)",
                "NAME[:PORT]",
                option_types.host_name,
                (),
                repeat=True,
                separator=option_types.HOSTS,
            ),
            Option(
                "--trusted-proxy",
                "address or network of a reverse proxy whose X-Forwarded-For, -Proto and -Prefix headers "
                "count; repeatable (variable: separated by blanks or commas; default: none)",
                "ADDRESS",
                option_types.network,
                (),
                repeat=True,
                separator=option_types.WORDS,
            ),
            Option(
                "--root-path",
                "path below which a reverse proxy serves the daemon, if it neither takes it away nor sends "
                "X-Forwarded-Prefix, such as /service-manager (default: none)",
                "PATH",
                option_types.root_path,
                "",
            ),
            COMPOSE_FILE,
            ENGINE,
            Option(
                "--resync",
                "time between full passes that catch missed events, in seconds or as 5m (default: 60)",
                "SECONDS",
                option_types.seconds,
                60.0,
            ),
            Option("--insecure", "allow --host other than loopback without an API key"),
            *GIT_RUN,
        ),
        examples=(
            ("run", "reconcile ./desired-state, dashboard at http://127.0.0.1:8000"),
            ("run --desired-state /srv/stack --port 8010", "another directory and port"),
            ("run --engine simulated", "try it without Docker"),
        ),
        exits=(
            ("0", "ended with SIGTERM or SIGINT"),
            ("1", "not started: another daemon uses the directory, the port is in use, …"),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="validate",
        section=OFFLINE,
        summary="check a desired-state directory",
        description=(
            "Validate stack.yaml, groups.yaml and the Compose files, and report every mistake as "
            "file:line:column: message. Needs Docker Compose, but no daemon and no engine. Changes nothing."
        ),
        handler="offline:validate",
        arguments=(DIRECTORY,),
        options=(DESIRED_STATE, COMPOSE_FILE, OUTPUT),
        examples=(
            ("validate", "validate ./desired-state"),
            ("validate /srv/stack && git push", "push only if valid"),
        ),
        exits=(("0", "valid"), ("1", "not valid, or Docker Compose is missing"), USAGE_EXIT),
    ),
    Command(
        name="plan",
        section=OFFLINE,
        summary="show the steps that the daemon would take now",
        description=(
            "Compare the desired state with the containers, and list the steps that the daemon would take, "
            "in order, each with its reason. Reads from the engine; needs no daemon. Changes nothing."
        ),
        handler="plan:plan",
        options=(*STATE, ENGINE, OUTPUT),
        examples=(
            ("plan", "plan for ./desired-state"),
            ("plan --output json | jq '.steps[].service'", "services that would change"),
            ("plan || test $? -eq 2", "in a script: accept changes, fail on errors"),
        ),
        exits=(
            ("0", "nothing to do"),
            ("2", "there are changes"),
            ("1", "the files are not valid, or the engine does not answer"),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="doctor",
        section=OFFLINE,
        summary="check this machine, and show how to fix problems",
        description=(
            "Check the engine and access to it, Docker Compose, the files, port, memory, cgroups, git, "
            "inotify and disk space. Each problem is shown with a remedy. Changes nothing."
        ),
        handler="doctor:doctor",
        options=(*STATE, ENGINE, HOST, PORT, OUTPUT),
        examples=(
            ("doctor", "run all checks"),
            (
                "doctor --output json | jq '.checks[] | select(.state != \"ok\")'",
                "only warnings and problems",
            ),
        ),
        exits=(("0", "no problem; warnings are possible"), ("1", "at least one problem"), USAGE_EXIT),
    ),
    Command(
        name="init",
        section=OFFLINE,
        summary="write a first desired-state directory from a Compose file",
        description=(
            "Write stack.yaml and groups.yaml for a Compose file: groups from profiles, dependencies from "
            "depends_on. Leaves the Compose project unchanged; overwrites files only with --force."
        ),
        handler="offline:init",
        arguments=(Argument("COMPOSE_FILE", "Compose file of the project", "", "files", option_types.path),),
        options=(
            DESIRED_STATE,
            ENGINE,
            Option("--force", "overwrite an existing stack.yaml and groups.yaml"),
        ),
        examples=(
            ("init compose.yaml", "write ./desired-state"),
            (
                "init ~/app/docker-compose.yml --desired-state ~/app/desired-state",
                "write the directory next to the project",
            ),
        ),
        exits=(("0", "written"), ("1", "nothing written; the message says why"), USAGE_EXIT),
    ),
    Command(
        name="schema",
        section=OFFLINE,
        summary="print the JSON Schema of stack.yaml or groups.yaml",
        description=(
            "Print the JSON Schema of a file, so that an editor completes keys and marks mistakes. Without "
            "FILE, print one object with both schemas by file name."
        ),
        handler="offline:schema",
        arguments=(
            Argument(
                "FILE",
                "stack or groups (default: both)",
                "?",
                convert=Word(
                    "there is no schema {}", "stack", "groups", hidden=("stack.yaml", "groups.yaml")
                ),
            ),
        ),
        examples=(
            ("schema stack > stack.schema.json", "write the schema, then add this first line to stack.yaml:"),
            ("", "# yaml-language-server: $schema=stack.schema.json"),
            (
                "schema groups > groups.schema.json",
                "the same for groups.yaml. VS Code (YAML extension), Neovim, Helix",
            ),
            ("", "and Zed read that line; JetBrains: Settings > JSON Schema Mappings"),
        ),
        exits=_PRINTED,
    ),
    Command(
        name="completion",
        section=OFFLINE,
        summary="print a shell completion script",
        description=(
            "Print a script that completes commands, options and group names. Group names come from the "
            "running daemon, otherwise from ./desired-state/stack.yaml."
        ),
        handler="completion:completion",
        arguments=(
            Argument(
                "SHELL",
                "bash, zsh or fish",
                # Scripts of version 0.2 and earlier call `completion groups`.
                convert=Word("there is no completion for {}", "bash", "zsh", "fish", hidden=("groups",)),
            ),
        ),
        examples=(
            ("completion bash > ~/.local/share/bash-completion/completions/service-manager", ""),
            ("completion zsh > ~/.zfunc/_service-manager", "with ~/.zfunc in $fpath, before compinit"),
            ("completion fish > ~/.config/fish/completions/service-manager.fish", ""),
        ),
        exits=_PRINTED,
    ),
    Command(
        name="version",
        section=OFFLINE,
        summary="print the version",
        description=(
            "Print the version of this program. With --output json, include the versions of Python and the "
            "platform, for bug reports."
        ),
        handler="offline:version",
        options=(OUTPUT,),
        examples=(("version", ""),),
        exits=_PRINTED,
    ),
)
