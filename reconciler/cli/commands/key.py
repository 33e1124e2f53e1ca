"""``key``: manages API keys in the state directory; a running daemon applies changes within a second."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import suppress
from pathlib import Path

from reconciler.auth.keys import KeyFile
from reconciler.cli.console import Console, clean
from reconciler.cli.options.parameters import UsageError
from reconciler.model.units import format_time


def key(console: Console, *, action: str, name: str | None, role: str, state_dir: Path, output: str) -> int:
    """Run one action."""
    as_json = output == "json"
    if action == "list":
        if name is not None:
            raise UsageError(f"unexpected argument {name!r}")
        return _list(state_dir, console, as_json=as_json)
    if name is None:
        raise UsageError("NAME is missing")
    if action == "add":
        return _add(name, role, state_dir, console, as_json=as_json)
    return _revoke(name, state_dir, console, as_json=as_json)


def _add(name: str, role: str, state_dir: Path, console: Console, *, as_json: bool) -> int:
    secret = KeyFile(state_dir).add(name, role, at=time.time())
    _record(state_dir, "key_add", name, f"role {role}", console)
    if as_json:
        console.json({"name": name, "role": role, "key": secret})
        return 0
    console.error(f"key {name} with role {role} was added to {state_dir}. It is shown only once:")
    console.print(secret)
    return 0


def _list(state_dir: Path, console: Console, *, as_json: bool) -> int:
    keys = KeyFile(state_dir).read()
    listed = [
        {"name": key.name, "role": key.role, "created_at": format_time(int(key.created_at))}
        for key in sorted(keys, key=lambda key: key.created_at)
    ]
    if as_json:
        console.json({"keys": listed})
        return 0
    if not listed:
        console.error(f"there are no keys in {state_dir}")
        return 0
    console.table([[*map(clean, key.values())] for key in listed], titles=("NAME", "ROLE", "ADDED"))
    return 0


def _revoke(name: str, state_dir: Path, console: Console, *, as_json: bool) -> int:
    left = KeyFile(state_dir).revoke(name)
    _record(state_dir, "key_revoke", name, "", console)
    if as_json:
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
        # The key file has changed already, so a missing audit entry must not fail the command.
        console.error(f"warning: the change is not in the audit log: {clean(error)}")


def _current_user() -> str:
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        return user
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return str(os.geteuid())
