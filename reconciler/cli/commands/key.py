"""``key``: manages API keys in the state directory; a running daemon applies changes within a second."""

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
    """Run one action."""
    action, name = values["action"], values["name"]
    if action not in _ACTIONS:
        hint = closest(action, _ACTIONS) or f"the actions are {', '.join(_ACTIONS)}"
        raise UsageError(f"unknown action {action!r}", hint)
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
    console.error(f"key {name} with role {role} was added to {state_dir}. It is shown only once:")
    console.print(made)
    return 0


def _list(values: OptionValues, console: Console) -> int:
    keys = KeyFile(values["state_dir"]).read()
    listed = [
        {"name": key.name, "role": key.role, "created_at": _format_time(key.created_at)}
        for key in sorted(keys, key=lambda key: key.created_at)
    ]
    if values["output"] == "json":
        console.json({"keys": listed})
        return 0
    if not listed:
        console.error(f"there are no keys in {values['state_dir']}")
        return 0
    rows: list[Row] = [tuple(Cell(title, "dim") for title in ("NAME", "ROLE", "ADDED"))]
    rows += [tuple(clean(text) for text in key.values()) for key in listed]
    console.table(rows)
    return 0


def _revoke(name: str, values: OptionValues, console: Console) -> int:
    state_dir = values["state_dir"]
    left = KeyFile(state_dir).revoke(name)
    _record(state_dir, "key_revoke", name, "", console)
    if values["output"] == "json":
        console.json({"revoked": name, "left": left})
        return 0
    console.print(f"key {name} is revoked; keys left: {left}")
    if not left:
        console.error("no key is left: every user of this machine can now read and change everything")
    return 0


def _record(state_dir: Path, action: str, name: str, message: str, console: Console) -> None:
    from reconciler.audit.chain import AuditEvent
    from reconciler.audit.database import AuditDatabaseError, AuditFile

    event = AuditEvent(
        action,
        target=name,
        result="done",
        user=f"local:{_current_user()}",
        reason="requested",
        message=message,
        source="local",
        at=time.time(),
    )
    try:
        file = AuditFile(state_dir, check=False)
        try:
            file.append([event])
        finally:
            file.close()
    except (OSError, AuditDatabaseError) as error:
        # The key file has changed already, so the command must not fail for a missing entry.
        console.error(f"warning: the change is not in the audit log: {clean(error)}")


def _current_user() -> str:
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        return user
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.geteuid())


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
