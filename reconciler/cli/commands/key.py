"""``key``: API keys in the state directory; a running daemon honours what changes within a second."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from reconciler.auth.keys import KeyFile
from reconciler.cli.console import Cell, Console, Row, clean
from reconciler.cli.options.parsing import UsageError, closest
from reconciler.cli.options.spec import OptionValues

_ACTIONS = ("add", "list", "revoke")


def key(values: OptionValues, console: Console) -> int:
    """One of the three."""
    action, name = values["action"], values["name"]
    if action not in _ACTIONS:
        hint = closest(action, _ACTIONS) or f"there are {', '.join(_ACTIONS)}"
        raise UsageError(f"there is no 'key {action}'", hint)
    if action == "list":
        if name is not None:
            raise UsageError(f"unexpected argument {name!r}")
        return _list(values, console)
    if name is None:
        raise UsageError("NAME is missing")
    if action == "add":
        return _add(name, values, console)
    return _revoke(name, values, console)


def _add(name: str, values: OptionValues, console: Console) -> int:
    state_dir, role = values["state_dir"], values["role"]
    made = KeyFile(state_dir).add(name, role, at=time.time())
    _record(state_dir, "key_add", name, f"role {role}", console)
    if values["output"] == "json":
        console.json({"name": name, "role": role, "key": made})
        return 0
    console.error(f"key {name}, role {role}, in {state_dir}. It is shown this once:")
    console.print(made)
    return 0


def _list(values: OptionValues, console: Console) -> int:
    found = KeyFile(values["state_dir"]).read()
    told = [
        {"name": one.name, "role": one.role, "created_at": _moment(one.created_at)}
        for one in sorted(found, key=lambda one: one.created_at)
    ]
    if values["output"] == "json":
        console.json({"keys": told})
        return 0
    if not told:
        console.error(f"there are no keys in {values['state_dir']}")
        return 0
    rows: list[Row] = [tuple(Cell(title, "dim") for title in ("NAME", "ROLE", "MADE"))]
    rows += [tuple(clean(text) for text in one.values()) for one in told]
    console.table(rows)
    return 0


def _revoke(name: str, values: OptionValues, console: Console) -> int:
    state_dir = values["state_dir"]
    left = KeyFile(state_dir).revoke(name)
    _record(state_dir, "key_revoke", name, "", console)
    if values["output"] == "json":
        console.json({"revoked": name, "left": left})
        return 0
    console.print(f"key {name} is revoked; {left} left")
    if not left:
        console.error("without any key, whoever is on this machine may read and change everything")
    return 0


def _record(state_dir: Path, action: str, name: str, message: str, console: Console) -> None:
    from reconciler.audit.chain import AuditEvent
    from reconciler.audit.database import AuditDatabaseError, AuditFile

    fact = AuditEvent(
        action,
        target=name,
        result="done",
        user=f"local:{_who()}",
        reason="requested",
        message=message,
        source="local",
        at=time.time(),
    )
    try:
        file = AuditFile(state_dir, check=False)
        try:
            file.append([fact])
        finally:
            file.close()
    except (OSError, AuditDatabaseError) as error:
        # The key is made or gone all the same: to say otherwise would be worse than an entry missing.
        console.error(f"warning: it is not in the audit log: {clean(error)}")


def _who() -> str:
    if os.geteuid() == 0 and (asked := os.environ.get("SUDO_USER")):
        return asked
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.geteuid())


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
