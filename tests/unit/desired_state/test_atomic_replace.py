"""Atomic replace: all or nothing, and a concurrent edit is never lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.desired_state import atomic_replace as exchange
from reconciler.desired_state.atomic_replace import atomic_replace, recover_interrupted
from reconciler.desired_state.stable_reader import FileBusy

OLD, NEW, EDIT, LATER_EDIT = b"old\n", b"new\n", b"edit\n", b"later edit\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(OLD)
    return tmp_path / "f"


def other_files(file: Path) -> list[str]:
    return sorted(set(os.listdir(file.parent)) - {file.name})


def before_exchange(monkeypatch: pytest.MonkeyPatch, **acts: Callable[[], object]) -> None:
    """Call ``first``, ``second``, … directly before the exchange of that number."""
    real, names = exchange._exchange, iter(("first", "second", "third"))

    def watched(one: Path, other: Path) -> bool:
        acts.get(next(names), lambda: None)()
        return real(one, other)

    monkeypatch.setattr(exchange, "_exchange", watched)


def save(file: Path, content: bytes) -> None:
    temporary = file.with_name("editor")
    temporary.write_bytes(content)
    temporary.replace(file)


def test_content_changes_and_attributes_stay(file: Path) -> None:
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
    before = file.stat()
    assert atomic_replace(file, OLD, NEW)
    after = file.stat()
    assert file.read_bytes() == NEW
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert other_files(file) == []


def test_changed_file_is_not_replaced(file: Path) -> None:
    assert not atomic_replace(file, EDIT, NEW)
    assert file.read_bytes() == OLD
    assert other_files(file) == []


def test_link_stays_a_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file.name)
    assert atomic_replace(link, OLD, NEW)
    assert link.is_symlink()
    assert file.read_bytes() == NEW


def test_concurrent_edit_is_restored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_exchange(monkeypatch, first=lambda: save(file, EDIT))
    assert not atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == EDIT
    assert other_files(file) == []


def test_edit_during_a_revert_is_restored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_exchange(monkeypatch, first=lambda: save(file, EDIT), second=lambda: save(file, LATER_EDIT))
    assert not atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == LATER_EDIT
    assert other_files(file) == []


def test_file_open_for_writing_is_not_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = []
    before_exchange(monkeypatch, first=lambda: writers.append(file.open("ab")))
    with pytest.raises(FileBusy):
        atomic_replace(file, OLD, NEW)
    (writer,) = writers
    writer.write(b"more\n")
    writer.close()
    assert file.read_bytes() == OLD + b"more\n"
    assert other_files(file) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_file_system_without_exchange(file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(exchange, "_exchange", lambda one, other: False)
    assert atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == NEW
    assert other_files(file) == []


def test_file_system_without_unnamed_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", without)
    assert atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == NEW
    assert other_files(file) == []


@pytest.mark.parametrize("call", ["fsync", "link", "write", "fchmod"])
def test_failed_call_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        atomic_replace(file, OLD, NEW)
    monkeypatch.undo()
    assert file.read_bytes() == OLD
    assert other_files(file) == []


@pytest.mark.parametrize(
    ("in_place", "aside", "result", "saved"),
    [
        (OLD, NEW, OLD, False),  # killed before the exchange
        (NEW, OLD, NEW, False),  # killed after it
        (NEW, EDIT, EDIT, True),  # killed before an edit was restored
        (EDIT, NEW, EDIT, False),  # killed after that
    ],
)
def test_crash_is_cleaned_up(file: Path, in_place: bytes, aside: bytes, result: bytes, saved: bool) -> None:
    file.write_bytes(in_place)
    exchange._temporary_path(file, OLD, NEW).write_bytes(aside)
    assert recover_interrupted(file) is saved
    assert file.read_bytes() == result
    assert other_files(file) == []


def test_clean_up_leaves_other_files(file: Path) -> None:
    names = [".f.swp", ".f.unknown.service-manager", "f~", ".g.a.b.service-manager"]
    for name in names:
        file.with_name(name).touch()
    assert not recover_interrupted(file)
    assert not recover_interrupted(file.with_name("gone"))
    assert other_files(file) == sorted(names)


@pytest.mark.timeout(20)
def test_special_files_of_a_temporary_name_are_left_alone(file: Path) -> None:
    pipe = file.with_name(f".{file.name}.a.b.service-manager")
    os.mkfifo(pipe)
    device = file.with_name(f".{file.name}.c.d.service-manager")
    device.symlink_to("/dev/zero")
    saved = file.with_name(f".{file.name}.e.f.service-manager")
    saved.write_bytes(b"an edit of somebody")
    assert recover_interrupted(file)
    assert file.read_bytes() == b"an edit of somebody"
    assert pipe.exists()
    assert device.is_symlink()
