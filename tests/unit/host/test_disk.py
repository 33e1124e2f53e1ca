"""Words about the disk."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.host.disk import disk_warnings


def of(free: int, flags: int = 0) -> object:
    return lambda _: SimpleNamespace(f_bavail=free, f_frsize=1, f_flag=flags)


def test_a_disk_with_room_is_not_worth_a_word(tmp_path: Path) -> None:
    assert disk_warnings([tmp_path], least=1) == ()
    assert disk_warnings([tmp_path / "gone"]) == ()


def test_little_room_is_said_in_words_that_do_not_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = set()
    for free in (0, 10, 2**20):
        monkeypatch.setattr(os, "statvfs", of(free))
        said |= set(disk_warnings([tmp_path]))
    assert len(said) == 1
    assert "less than 64 MiB" in said.pop()


def test_what_can_not_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", of(2**40, os.ST_RDONLY))
    assert "read-only" in disk_warnings([tmp_path])[0]
