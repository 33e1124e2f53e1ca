"""``doctor``: runs all checks and prints the findings."""

from __future__ import annotations

from pathlib import Path

from reconciler.cli.console import Console, clean
from reconciler.cli.doctor.checks import run_checks
from reconciler.cli.doctor.context import CheckContext
from reconciler.model.diagnosis import OK, PROBLEM, WARN, Check

_SIGNS = {OK: ("✓", ""), WARN: ("!", "yellow"), PROBLEM: ("✗", "red")}


def doctor(
    console: Console,
    *,
    desired_state: Path,
    state_dir: Path,
    compose_file: tuple[Path, ...],
    host: str,
    port: int,
    engine: str,
    output: str,
) -> int:
    """Run all checks; exit code 1 if one of them finds a problem."""
    context = CheckContext(
        desired_state=desired_state,
        state_dir=state_dir,
        compose_files=compose_file,
        host=host,
        port=port,
        kind=engine,
    )
    checks = run_checks(context)
    problems = sum(check.state == PROBLEM for check in checks)
    if output == "json":
        console.json({"ok": not problems, "checks": [check._asdict() for check in checks]})
    else:
        print_checks(checks, console)
    return 1 if problems else 0


def print_checks(checks: list[Check], console: Console) -> None:
    """Print a line per check, and below it the remedy of a problem or warning."""
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        sign, style = _SIGNS[check.state]
        console.print(f"{console.paint(sign, style)} {check.name:{width}}  {clean(check.message)}")
        if check.remedy and check.state != OK:
            console.print(f"  {'':{width}}  {console.paint('→ ' + clean(check.remedy), style)}")
    problems = sum(check.state == PROBLEM for check in checks)
    warnings = sum(check.state == WARN for check in checks)
    console.print()
    if problems:
        console.print(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    else:
        console.print(f"No problems, {_count(warnings, 'warning')}." if warnings else "No problems.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
