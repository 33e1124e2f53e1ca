"""What a dockerd leaves in the firewall when it ends, and how `make clean` takes that back.

Only where the private engine was the first engine of its machine or network namespace: a look before it
starts says so, and chains that were there then stay. A chain that a person has put rules into stays too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TypedDict

from reconciler.quickstart.host import which

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TABLES = ("nat", "filter", "raw")
_TOOLS = ("iptables", "ip6tables")
_NEVER_OURS = "DOCKER-USER"


class Look(TypedDict):
    """The firewall before: for each tool and table its own lines, and whether packets were forwarded."""

    rules: dict[str, list[str]]
    forwarding: str


def look() -> Look:
    """The firewall now; empty where there is no iptables."""
    rules = {f"{tool} {table}": _listed(tool, table) for tool in _TOOLS for table in _TABLES}
    return {"rules": rules, "forwarding": _FORWARDING.read_text().strip()}


def restore(before: Look) -> None:
    """Take away what is new since `before` and Docker's; put back policies and forwarding."""
    for place, rules in before["rules"].items():
        tool, table = place.split()
        for order in orders(rules, _listed(tool, table)):
            _run(tool, table, *order)
    if _FORWARDING.read_text().strip() != before["forwarding"]:
        _FORWARDING.write_text(before["forwarding"] + "\n")


def orders(before: list[str], now: list[str]) -> list[list[str]]:
    """The arguments for iptables that turn the rules of `now` into those of `before`, Docker's part only.

    Both are as `iptables -S` prints them. A foreign rule that jumps into a chain keeps the chain, since
    iptables refuses to delete it.
    """
    new = [line.split() for line in now if line not in before]
    made = {words[1] for words in new if words[0] == "-N" and words[1].startswith("DOCKER")}
    in_user = [words for words in new if words[:2] == ["-A", _NEVER_OURS] and words[2:] != ["-j", "RETURN"]]
    if in_user:
        made.discard(_NEVER_OURS)
    jumps = [["-D", *words[1:]] for words in new if words[0] == "-A" and _jumps_into(words, made)]
    policies = [line.split() for line in before if line.startswith("-P") and line not in now]
    flushed = [["-F", chain] for chain in sorted(made)]
    return [*policies, *jumps, *flushed, *(["-X", chain] for chain in sorted(made))]


def _jumps_into(words: list[str], chains: set[str]) -> bool:
    # In chains of Docker's own the flush does it.
    return words[1] not in chains and "-j" in words and words[words.index("-j") + 1] in chains


def _listed(tool: str, table: str) -> list[str]:
    return _run(tool, table, "-S").splitlines()


def _run(tool: str, table: str, *order: str) -> str:
    program = which(tool)
    if program is None:
        return ""
    done = subprocess.run(
        [program, "--wait", "5", "--table", table, *order], capture_output=True, text=True, check=False
    )
    return done.stdout
