"""A file is replaced whole or not at all, and no edit made in that very moment is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.desired_state import atomic_replace as exchange
from reconciler.desired_state.atomic_replace import atomic_replace, recover_interrupted
from reconciler.desired_state.stable_reader import FileBusy

OLD, NEW, THEIRS, LATER = b"old\n", b"new\n", b"theirs\n", b"later\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(OLD)
    return tmp_path / "f"


def left(file: Path) -> list[str]:
    return sorted(set(os.listdir(file.parent)) - {file.name})


def before_exchange(monkeypatch: pytest.MonkeyPatch, **acts: Callable[[], object]) -> None:
    """Runs ``first``, ``second``, … just before the exchange of that number."""
    real, names = exchange._exchange, iter(("first", "second", "third"))

    def watched(one: Path, other: Path) -> bool:
        acts.get(next(names), lambda: None)()
        return real(one, other)

    monkeypatch.setattr(exchange, "_exchange", watched)


def save(file: Path, content: bytes) -> None:
    temporary = file.with_name("editor")
    temporary.write_bytes(content)
    temporary.replace(file)


def test_the_content_changes_and_all_else_stays(file: Path) -> None:
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
    before = file.stat()
    assert atomic_replace(file, OLD, NEW)
    after = file.stat()
    assert file.read_bytes() == NEW
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert left(file) == []


def test_a_file_that_is_otherwise_by_now_is_left_alone(file: Path) -> None:
    assert not atomic_replace(file, THEIRS, NEW)
    assert file.read_bytes() == OLD
    assert left(file) == []


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file.name)
    assert atomic_replace(link, OLD, NEW)
    assert link.is_symlink()
    assert file.read_bytes() == NEW


def test_an_edit_in_the_very_moment_is_put_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_exchange(monkeypatch, first=lambda: save(file, THEIRS))
    assert not atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == THEIRS
    assert left(file) == []


def test_an_edit_while_one_is_put_back_is_not_lost_either(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_exchange(monkeypatch, first=lambda: save(file, THEIRS), second=lambda: save(file, LATER))
    assert not atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == LATER
    assert left(file) == []


def test_a_writer_that_has_the_file_open_keeps_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = []
    before_exchange(monkeypatch, first=lambda: writers.append(file.open("ab")))
    with pytest.raises(FileBusy):
        atomic_replace(file, OLD, NEW)
    (writer,) = writers
    writer.write(b"more\n")
    writer.close()
    assert file.read_bytes() == OLD + b"more\n"
    assert left(file) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_can_not_exchange(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(exchange, "_exchange", lambda one, other: False)
    assert atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == NEW
    assert left(file) == []


def test_a_file_system_without_nameless_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def without(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", without)
    assert atomic_replace(file, OLD, NEW)
    assert file.read_bytes() == NEW
    assert left(file) == []


@pytest.mark.parametrize("call", ["fsync", "link", "write", "fchmod"])
def test_a_failure_anywhere_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        atomic_replace(file, OLD, NEW)
    monkeypatch.undo()
    assert file.read_bytes() == OLD
    assert left(file) == []


@pytest.mark.parametrize(
    ("in_place", "aside", "result", "saved"),
    [
        (OLD, NEW, OLD, False),  # killed before the exchange
        (NEW, OLD, NEW, False),  # killed after it
        (NEW, THEIRS, THEIRS, True),  # killed before an edit was put back
        (THEIRS, NEW, THEIRS, False),  # killed after that
    ],
)
def test_a_crash_in_the_middle_is_cleared_up(
    file: Path, in_place: bytes, aside: bytes, result: bytes, saved: bool
) -> None:
    file.write_bytes(in_place)
    exchange._temporary_path(file, OLD, NEW).write_bytes(aside)
    assert recover_interrupted(file) is saved
    assert file.read_bytes() == result
    assert left(file) == []


def test_clearing_up_touches_nothing_else(file: Path) -> None:
    names = [".f.swp", ".f.notours.service-manager", "f~", ".g.a.b.service-manager"]
    for name in names:
        file.with_name(name).touch()
    assert not recover_interrupted(file)
    assert not recover_interrupted(file.with_name("gone"))
    assert left(file) == sorted(names)
