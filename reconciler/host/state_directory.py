"""Creates the state directory, and refuses one in which other users could plant files."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
from pathlib import Path

from reconciler.errors import ServiceManagerError
from reconciler.host.atomic_files import mkdir_private

log = logging.getLogger(__name__)


class UnsafeStateDirectory(ServiceManagerError):
    """Other users may write the state directory, so its keys and audit log prove nothing."""


def prepare(directory: Path) -> None:
    """Create the directory if it is missing, and check who may write it.

    Raises:
        UnsafeStateDirectory: users other than its owner may write it; the message has the remedy.
        OSError: it can't be created or read.
    """
    mkdir_private(directory)
    status = directory.stat()
    others = _writers(status)
    if others:
        raise UnsafeStateDirectory(
            f"{directory} holds keys and the audit log, but {others} may write it.\n"
            f"  → check what is in it, then: chmod go-w {directory}"
        )
    if status.st_uid not in {os.geteuid(), 0}:
        extra = {"path": str(directory), "owner": status.st_uid}
        log.warning(
            "the state directory belongs to another user, who can change keys and records", extra=extra
        )


def _writers(status: os.stat_result) -> str:
    if status.st_mode & stat.S_IWOTH:
        return "every user"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_uid, status.st_gid):
        return f"the group {_group_name(status.st_gid)}"
    return ""


def _is_private_group(user: int, group: int) -> bool:
    """Return whether only this user is in the group, as in distributions that give each user one."""
    try:
        account, entry = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        # Without names, as in a container, the user's own number is the only private one.
        return user == group
    return account.pw_gid == group and not set(entry.gr_mem) - {account.pw_name}


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
