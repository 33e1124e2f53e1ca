"""Commands that work on this machine: the daemon itself, and those that need none. Data only."""

from __future__ import annotations

from reconciler.cli.commands.definitions.history import GIT_RUN
from reconciler.cli.options import option_types
from reconciler.cli.options.common_options import (
    COMPOSE_FILE,
    DAEMON,
    DESIRED_STATE,
    ENGINE,
    HOST,
    NEAREST_STATE_DIR,
    OFFLINE,
    OUTPUT,
    PORT,
    STATE_DIR,
    USAGE_EXIT,
)
from reconciler.cli.options.spec import Argument, Command, Option

LOCAL: tuple[Command, ...] = (
    Command(
        name="run",
        section=DAEMON,
        summary="run the daemon in the foreground: loop, REST and dashboard",
        description=(
            "Keeps the containers of the stack as the desired-state directory says, until it gets SIGTERM or "
            "SIGINT. Containers go on running when it ends; the next run takes up from what is there."
        ),
        handler="run:run",
        options=(
            DESIRED_STATE,
            STATE_DIR,
            HOST,
            PORT,
            Option(
                "--metrics-listen",
                "a second listener that serves /metrics alone, for a Prometheus in a container",
                "ADDRESS:PORT",
                option_types.address,
            ),
            Option(
                "--allowed-host",
                "a further name to answer to, such as that of a reverse proxy; may be given again (in the "
                "variable: between colons)",
                "NAME",
                option_types.name,
                (),
                repeat=True,
            ),
            COMPOSE_FILE,
            ENGINE,
            Option(
                "--resync",
                "seconds between safety-net passes; 60. Everything else is event-driven",
                "SECONDS",
                option_types.seconds,
                60.0,
            ),
            Option("--insecure", "allow an address other than loopback though no API key is set"),
            *GIT_RUN,
        ),
        examples=(
            ("run", "the stack in ./desired-state, dashboard at http://127.0.0.1:8000"),
            ("run --desired-state /srv/stack --port 8010", "another directory, another port"),
            ("run --engine simulated", "try it on a machine without Docker"),
        ),
        exits=(
            ("0", "ended by SIGTERM or SIGINT"),
            ("1", "could not start: another daemon holds the directory, the port is taken, ..."),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="validate",
        section=OFFLINE,
        summary="check a desired-state directory",
        description=(
            "Reads stack.yaml, groups.yaml and the Compose files as the daemon would, and tells every "
            "mistake at once as file:line:column: message. Needs Docker Compose but neither a daemon nor an "
            "engine, and changes nothing."
        ),
        handler="offline:validate",
        arguments=(Argument("DIR", "the directory; else as --desired-state", "?", "dirs"),),
        options=(DESIRED_STATE, COMPOSE_FILE, OUTPUT),
        examples=(
            ("validate", "check ./desired-state"),
            ("validate /srv/stack && git push", "push only what is valid"),
        ),
        exits=(("0", "valid"), ("1", "not valid, or Docker Compose can't be run"), USAGE_EXIT),
    ),
    Command(
        name="plan",
        section=OFFLINE,
        summary="show what converging would do now",
        description=(
            "Compares the desired state with the containers and lists every step that the loop would take, "
            "in order, with its reason. Looks at the engine itself, needs no daemon, and changes nothing."
        ),
        handler="plan:plan",
        options=(DESIRED_STATE, NEAREST_STATE_DIR, COMPOSE_FILE, ENGINE, OUTPUT),
        examples=(
            ("plan", "what would happen to the stack in ./desired-state"),
            ("plan --output json | jq '.steps[].service'", "for a program"),
            ("plan || test $? -eq 2", "in a script: fail on errors, not on changes"),
        ),
        exits=(
            ("0", "nothing to do"),
            ("2", "there are changes"),
            ("1", "the files are not valid or the engine can't be asked"),
            USAGE_EXIT,
        ),
    ),
    Command(
        name="doctor",
        section=OFFLINE,
        summary="check this machine and say how to mend what is wrong",
        description=(
            "Checks the engine and the right to use it, Docker Compose, the files, the port, memory, "
            "cgroups, git, inotify and disk space. Each problem comes with its remedy; nothing is changed."
        ),
        handler="doctor:doctor",
        options=(DESIRED_STATE, NEAREST_STATE_DIR, COMPOSE_FILE, HOST, PORT, OUTPUT),
        examples=(
            ("doctor", "check everything"),
            ("doctor --output json | jq '.checks[] | select(.state != \"ok\")'", "only what is not well"),
        ),
        exits=(("0", "fine, or warnings only"), ("1", "problems"), USAGE_EXIT),
    ),
    Command(
        name="init",
        section=OFFLINE,
        summary="write a first desired-state directory from a Compose file",
        description=(
            "Makes stack.yaml and groups.yaml from any Compose file: groups from its profiles, dependencies "
            "from depends_on, every service in one group. Changes no file of the project, and writes over "
            "nothing without --force."
        ),
        handler="offline:init",
        arguments=(Argument("COMPOSE_FILE", "the Compose file to begin with", "", "files"),),
        options=(
            DESIRED_STATE,
            Option("--force", "write over a stack.yaml and groups.yaml that are there already"),
        ),
        examples=(
            ("init compose.yaml", "writes ./desired-state"),
            ("init ~/app/docker-compose.yml --desired-state ~/app/desired-state", "beside the project"),
        ),
        exits=(("0", "written"), ("1", "nothing written, and why"), USAGE_EXIT),
    ),
    Command(
        name="schema",
        section=OFFLINE,
        summary="print JSON Schema of stack.yaml or groups.yaml",
        description=(
            "Prints the JSON Schema of a file, so that an editor completes its keys and marks mistakes "
            "while you type. Without a name it prints both, as one object by file name."
        ),
        handler="offline:schema",
        arguments=(Argument("FILE", "stack or groups", "?", "stack groups"),),
        examples=(
            ("schema stack > stack.schema.json", "then begin stack.yaml with the line"),
            ("", "# yaml-language-server: $schema=stack.schema.json"),
            (
                "schema groups > groups.schema.json",
                "the same for groups.yaml; VS Code (YAML extension), Neovim,",
            ),
            ("", "Helix and Zed read that line; JetBrains: Settings > JSON Schema Mappings"),
        ),
        exits=(("0", "printed"), USAGE_EXIT),
    ),
    Command(
        name="completion",
        section=OFFLINE,
        summary="print a completion script for a shell",
        description=(
            "Prints a script that completes commands, options and the names of groups with the Tab key. "
            "Groups come from the running daemon, or else from ./desired-state/stack.yaml."
        ),
        handler="completion:completion",
        arguments=(Argument("SHELL", "bash, zsh or fish", "", "bash zsh fish"),),
        examples=(
            ("completion bash > ~/.local/share/bash-completion/completions/service-manager", ""),
            ("completion zsh > ~/.zfunc/_service-manager", "with ~/.zfunc in $fpath, before compinit"),
            ("completion fish > ~/.config/fish/completions/service-manager.fish", ""),
        ),
        exits=(("0", "printed"), USAGE_EXIT),
    ),
    Command(
        name="version",
        section=OFFLINE,
        summary="print the version",
        description=(
            "Prints the version of this program. With --output json also those of Python and of the "
            "daemon's REST contract, for bug reports."
        ),
        handler="offline:version",
        options=(OUTPUT,),
        examples=(("version", ""),),
        exits=(("0", "printed"), USAGE_EXIT),
    ),
)
