"""Files written into a directory of another user, who may have planted links there (S6)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.audit.chain_head import ChainHead
from reconciler.audit.database import AuditFile
from reconciler.auth.keys import KeyFile, KeyStoreError
from reconciler.git import setup
from reconciler.host import state_directory
from reconciler.host.atomic_files import acting_as_owner, mkdir_private, write_file
from reconciler.host.state_directory import UnsafeStateDirectory

OTHER = 65534
ROOT = os.geteuid() == 0


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file out of reach of the owner of the state directory."""
    file = tmp_path / "victim"
    file.write_text("precious")
    file.chmod(0o600)
    return file


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory of another user, as far as the tests' user can make one."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    if ROOT:
        os.chown(directory, OTHER, OTHER)
    return directory


def unharmed(victim: Path) -> bool:
    status = victim.stat()
    return (victim.read_text(), stat.S_IMODE(status.st_mode), status.st_uid) == (
        "precious",
        0o600,
        os.geteuid(),
    )


def plant(state: Path, name: str, victim: Path) -> None:
    (state / name).symlink_to(victim)
    if ROOT:
        os.chown(state / name, OTHER, OTHER, follow_symlinks=False)


def test_a_planted_temporary_file_is_replaced_not_followed(state: Path, victim: Path) -> None:
    plant(state, ".keys.json.new", victim)
    assert KeyFile(state).add("ann", "viewer", at=1.0)
    assert unharmed(victim)
    status = (state / "keys.json").lstat()
    assert stat.S_ISREG(status.st_mode)
    assert status.st_uid == state.stat().st_uid


def test_a_planted_lock_is_refused(state: Path, victim: Path) -> None:
    plant(state, "keys.lock", victim)
    with pytest.raises(KeyStoreError, match=r"keys\.lock is a link"):
        KeyFile(state).add("ann", "viewer", at=1.0)
    assert unharmed(victim)


def test_planted_files_of_the_audit_log_are_refused(state: Path, victim: Path, tmp_path: Path) -> None:
    plant(state, "audit.head", victim)
    with pytest.raises(OSError, match="is a link"):
        ChainHead(state)
    (state / "audit.head").unlink()
    for target in (victim, tmp_path / "dangling"):
        plant(state, "audit.db", target)
        with pytest.raises(OSError, match="is a link"):
            AuditFile(state, check=False)
        (state / "audit.db").unlink()
    assert unharmed(victim)
    assert not (tmp_path / "dangling").exists()


def test_root_does_not_write_into_a_planted_directory(state: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    plant(state, "generations", elsewhere)
    if ROOT:
        with pytest.raises(OSError, match="link of another user"):
            write_file(state / "generations" / "1.json", b"{}")
        assert not list(elsewhere.iterdir())
    else:
        # Links of the writer's own lead nowhere that the writer can't go.
        write_file(state / "generations" / "1.json", b"{}")


def test_permissions_are_restored(state: Path, victim: Path) -> None:
    with acting_as_owner(state):
        pass
    assert victim.read_text() == "precious"
    mkdir_private(state / "made")
    assert (state / "made").stat().st_uid == state.stat().st_uid


def test_git_setup_follows_no_link(tmp_path: Path, victim: Path) -> None:
    top = tmp_path / "desired"
    hooks = top / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "link").symlink_to(victim)
    setup._share(top / ".git")
    assert unharmed(victim)
    assert hooks.stat().st_mode & stat.S_IWGRP


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_state_directory_that_everyone_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "state"
    state_directory.prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(mode)
    with pytest.raises(UnsafeStateDirectory, match="chmod go-w"):
        state_directory.prepare(directory)
