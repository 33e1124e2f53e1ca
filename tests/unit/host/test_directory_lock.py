from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reconciler.errors import AlreadyRunning
from reconciler.host.directory_lock import DirectoryLock


def test_directory_is_locked_once_and_without_a_lock_file(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(AlreadyRunning, match=str(tmp_path)):
        DirectoryLock(tmp_path)
    assert os.listdir(tmp_path) == []
    lock.close()
    DirectoryLock(tmp_path).close()


def test_replaced_directory_is_locked_again(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    lock = DirectoryLock(directory)
    lock.refresh()
    directory.rename(tmp_path / "old")
    lock.refresh()
    directory.mkdir()
    lock.refresh()
    with pytest.raises(AlreadyRunning):
        DirectoryLock(directory)
    DirectoryLock(tmp_path / "old").close()
    shutil.rmtree(directory)
    directory.mkdir()
    other = DirectoryLock(directory)
    with pytest.raises(AlreadyRunning):
        lock.refresh()
    other.close()
    lock.refresh()
    lock.close()


def test_lock_through_a_link_is_the_lock_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    lock = DirectoryLock(tmp_path / "d")
    with pytest.raises(AlreadyRunning):
        DirectoryLock(tmp_path / "link")
    lock.close()
