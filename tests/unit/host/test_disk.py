"""Warnings about full and read-only disks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.host.disk import disk_warnings


def statvfs(free: int, flags: int = 0) -> object:
    return lambda _: SimpleNamespace(f_bavail=free, f_frsize=1, f_flag=flags)


def test_disk_with_free_space_has_no_warning(tmp_path: Path) -> None:
    assert disk_warnings([tmp_path], min_free=1) == ()
    assert disk_warnings([tmp_path / "gone"]) == ()


def test_low_space_warning_has_constant_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = set()
    for free in (0, 10, 2**20):
        monkeypatch.setattr(os, "statvfs", statvfs(free))
        warnings |= set(disk_warnings([tmp_path]))
    assert len(warnings) == 1
    assert "less than 64 MiB" in warnings.pop()


def test_read_only_file_system_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs(2**40, os.ST_RDONLY))
    assert "read-only" in disk_warnings([tmp_path])[0]
