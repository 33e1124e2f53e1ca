"""Completion scripts for bash, zsh and fish, made from the table of commands. Pure: text out.

Names of groups are asked for when the Tab key is pressed, through ``service-manager completion groups``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from reconciler.cli.commands.definitions.table import COMMANDS
from reconciler.cli.options.spec import PROGRAM, Argument, Command, Option

_GROUPS = f"{PROGRAM} completion groups 2>/dev/null"


def bash() -> str:
    """The script for bash 4.4 or later."""
    cases = "\n".join(line for command in COMMANDS for line in _bash_case(command))
    return f"""\
# Completion of {PROGRAM} for bash. Made by `{PROGRAM} completion bash`.
_service_manager() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} options='' kind=''
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W {shlex.quote(_names())} -- "$cur")
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [[ $cur == -* ]]; then kind=$options; fi
    case "$kind" in
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        groups) mapfile -t COMPREPLY < <(compgen -W "$({_GROUPS})" -- "$cur") ;;
        none) ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$cur") ;;
    esac
}}
complete -F _service_manager {PROGRAM}
"""


def _bash_case(command: Command) -> Iterator[str]:
    yield f"        {command.name})"
    flags = " ".join([*(option.flag for option in command.options), "--help"])
    yield f"            options='{flags}'"
    kinds = [argument.complete for argument in command.arguments] or ["$options"]
    default = kinds[0] if kinds[0] != "$options" else flags
    valued = [option for option in command.options if not option.switch]
    yield '            case "$prev" in'
    for option in valued:
        yield f"                {option.flag}) kind='{option.complete or 'none'}' ;;"
    yield f"                *) kind='{default}' ;;"
    yield "            esac ;;"


def zsh() -> str:
    """The script for zsh; the file's name is _service-manager."""
    described = "\n".join(f"        {_zsh_quoted(f'{c.name}:{c.summary}')}" for c in COMMANDS)
    cases = "\n".join(line for command in COMMANDS for line in _zsh_case(command))
    return f"""\
#compdef {PROGRAM}
# Completion of {PROGRAM} for zsh. Made by `{PROGRAM} completion zsh`.
_service_manager_groups() {{
    local -a names
    names=(${{(f)"$({_GROUPS})"}})
    compadd -a names
}}
_service_manager() {{
    local -a commands
    commands=(
{described}
    )
    if (( CURRENT == 2 )); then
        _describe -t commands command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}
if [ "$funcstack[1]" = _service-manager ]; then
    _service_manager "$@"
else
    compdef _service_manager {PROGRAM}
fi
"""


def _zsh_case(command: Command) -> Iterator[str]:
    yield f"        {command.name}) _arguments -S \\"
    for option in command.options:
        yield f"            {_zsh_quoted(_zsh_option(option))} \\"
    for argument in command.arguments:
        many = "*" if argument.arity in {"+", "*"} else ""
        yield f"            {_zsh_quoted(f'{many}:{argument.name}:{_zsh_kind(argument.complete)}')} \\"
    yield "            '(- *)'{-h,--help}'[show help]' ;;"


def _zsh_option(option: Option) -> str:
    many = "*" if option.repeat else ""
    text = _zsh_escaped(option.help)
    if option.switch:
        return f"{many}{option.flag}[{text}]"
    return f"{many}{option.flag}=[{text}]:{_zsh_escaped(option.metavar)}:{_zsh_kind(option.complete)}"


def _zsh_kind(kind: str) -> str:
    known = {"files": "_files", "dirs": "_files -/", "groups": "_service_manager_groups", "": " "}
    return known.get(kind, f"({kind})")


def _zsh_escaped(text: str) -> str:
    for letter in "\\[]:":
        text = text.replace(letter, f"\\{letter}")
    return text


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish() -> str:
    """The script for fish."""
    lines = [
        f"# Completion of {PROGRAM} for fish. Made by `{PROGRAM} completion fish`.",
        f"complete -c {PROGRAM} -f",
    ]
    for command in COMMANDS:
        begin = f"complete -c {PROGRAM} -n"
        lines.append(f"{begin} __fish_use_subcommand -a {command.name} -d {_fish_quoted(command.summary)}")
        seen = f"{begin} {_fish_quoted(f'__fish_seen_subcommand_from {command.name}')}"
        lines += [f"{seen} {_fish_option(option)}" for option in command.options]
        lines += [f"{seen} {_fish_argument(a)}" for a in command.arguments if a.complete]
        lines.append(f"{seen} -s h -l help -d {_fish_quoted('show help')}")
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    found = f"-l {option.flag.removeprefix('--')} -d {_fish_quoted(option.help)}"
    return found if option.switch else f"{found} {_fish_values(option.complete)}"


def _fish_argument(argument: Argument) -> str:
    return _fish_values(argument.complete).removeprefix("-x ").replace("-r -F", "-F")


def _fish_values(kind: str) -> str:
    known = {
        "files": "-r -F",
        "dirs": "-x -a '(__fish_complete_directories)'",
        "groups": f"-x -a '({_GROUPS})'",
        "": "-x",
    }
    return known.get(kind, f"-x -a {_fish_quoted(kind)}")


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _names() -> str:
    return " ".join(command.name for command in COMMANDS)


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
