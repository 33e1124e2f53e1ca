"""Removes the firewall rules that a dockerd leaves behind when it stops, for `make clean`.

Only if the private engine was the first engine of its machine or network namespace, as recorded before its
start. Chains that existed before stay, and so does a chain to which the user added rules.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TypedDict

from reconciler.quickstart.host import find_program

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TABLES = ("nat", "filter", "raw")
_TOOLS = ("iptables", "ip6tables")
_USER_CHAIN = "DOCKER-USER"


class FirewallState(TypedDict):
    """The rules for each tool and table, as `iptables -S` prints them, and whether IP forwarding is on."""

    rules: dict[str, list[str]]
    forwarding: str


def read_state() -> FirewallState:
    """Read the current state; empty rules without iptables."""
    rules = {f"{tool} {table}": _listed(tool, table) for tool in _TOOLS for table in _TABLES}
    return {"rules": rules, "forwarding": _FORWARDING.read_text().strip()}


def restore(before: FirewallState) -> None:
    """Remove Docker's rules that are newer than `before`; restore policies and forwarding."""
    for place, rules in before["rules"].items():
        tool, table = place.split()
        for command in restore_commands(rules, _listed(tool, table)):
            _run(tool, table, *command)
    if _FORWARDING.read_text().strip() != before["forwarding"]:
        _FORWARDING.write_text(before["forwarding"] + "\n")


def restore_commands(before: list[str], now: list[str]) -> list[list[str]]:
    """Return the arguments for iptables that turn the rules `now` into those `before`, Docker's part only.

    Both are as `iptables -S` prints them. A chain that a foreign rule jumps to stays, since iptables refuses
    to delete it.
    """
    new = [line.split() for line in now if line not in before]
    made = {words[1] for words in new if words[0] == "-N" and words[1].startswith("DOCKER")}
    in_user = [words for words in new if words[:2] == ["-A", _USER_CHAIN] and words[2:] != ["-j", "RETURN"]]
    if in_user:
        made.discard(_USER_CHAIN)
    jumps = [["-D", *words[1:]] for words in new if words[0] == "-A" and _jumps_into(words, made)]
    policies = [line.split() for line in before if line.startswith("-P") and line not in now]
    flushed = [["-F", chain] for chain in sorted(made)]
    return [*policies, *jumps, *flushed, *(["-X", chain] for chain in sorted(made))]


def _jumps_into(words: list[str], chains: set[str]) -> bool:
    # Docker's own chains are flushed as a whole.
    return words[1] not in chains and "-j" in words and words[words.index("-j") + 1] in chains


def _listed(tool: str, table: str) -> list[str]:
    return _run(tool, table, "-S").splitlines()


def _run(tool: str, table: str, *arguments: str) -> str:
    program = find_program(tool)
    if program is None:
        return ""
    done = subprocess.run(
        [program, "--wait", "5", "--table", table, *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout
