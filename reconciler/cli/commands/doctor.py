"""``doctor``: runs the checks and prints what they found."""

from __future__ import annotations

from reconciler.cli.console import Console, clean, pad, width_of
from reconciler.cli.doctor.checks import run_checks
from reconciler.cli.doctor.context import OK, PROBLEM, WARN, Check, CheckContext
from reconciler.cli.options.spec import OptionValues

_SIGNS = {OK: ("✓", ""), WARN: ("!", "amber"), PROBLEM: ("✗", "red")}


def doctor(values: OptionValues, console: Console) -> int:
    """Every check; exit code 1 if any of them found a problem."""
    machine = CheckContext(
        desired_state=values["desired_state"],
        state_dir=values["state_dir"],
        compose_files=values["compose_file"],
        host=values["host"],
        port=values["port"],
    )
    found = run_checks(machine)
    problems = sum(check.state == PROBLEM for check in found)
    if values["output"] == "json":
        console.json({"ok": not problems, "checks": [check._asdict() for check in found]})
    else:
        show(found, console)
    return 1 if problems else 0


def show(found: list[Check], console: Console) -> None:
    """A line per check, its remedy below it where there is one."""
    width = max((width_of(check.name) for check in found), default=0)
    for check in found:
        sign, style = _SIGNS[check.state]
        console.print(f"{console.paint(sign, style)} {pad(check.name, width)}  {clean(check.message)}")
        if check.remedy and check.state != OK:
            console.print(f"  {'':{width}}  {console.paint('→ ' + clean(check.remedy), style)}")
    problems = sum(check.state == PROBLEM for check in found)
    warnings = sum(check.state == WARN for check in found)
    console.print()
    if problems:
        console.print(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    else:
        console.print(f"All is well, {_count(warnings, 'warning')}." if warnings else "All is well.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
