from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.desired_state.stable_reader import FileBusy, StableReader, is_open_for_writing, stat_signature
from reconciler.errors import InvalidDesiredState
from reconciler.host.yaml_positions import MAX_BYTES


def aged(path: Path, content: str) -> Path:
    """A file whose time stamps are some time ago."""
    path.write_text(content)
    os.utime(path, ns=(time.time_ns() - 10**12,) * 2)
    return path


class Late(StableReader):
    """A reader with a clock far ahead, so that all files look settled."""

    def __init__(self) -> None:
        super().__init__(now=lambda: time.time_ns() + 10**12)


def test_file_is_read_once_in_a_pass(tmp_path: Path) -> None:
    reader, file = StableReader(), tmp_path / "f"
    file.write_text("one")
    reader.open_scan()
    assert reader.read(file) == b"one"
    file.write_text("two")
    assert reader.read(file) == b"one"
    assert reader.has_changed()
    reader.open_scan()
    assert reader.read(file) == b"two"
    assert not reader.has_changed()


def test_change_within_one_clock_tick_is_noticed(tmp_path: Path) -> None:
    reader, file = StableReader(), tmp_path / "f"
    file.write_text("one")
    reader.open_scan()
    reader.read(file)
    held = reader._pass[file]
    file.write_text("two")
    reader._pass[file] = held._replace(signature=stat_signature(file))
    assert reader.has_changed()


def test_settled_file_is_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = Late(), tmp_path / "f"
    file.write_text("one")
    reader.open_scan()
    reader.read(file)
    monkeypatch.setattr(os, "open", None)
    reader.open_scan()
    assert reader.read(file) == b"one"
    assert not reader.has_changed()


def test_file_appears_and_disappears(tmp_path: Path) -> None:
    reader, file = StableReader(), tmp_path / "f"
    reader.open_scan()
    assert reader.read(file) is None
    assert not reader.has_changed()
    file.write_text("one")
    assert reader.has_changed()
    reader.open_scan()
    assert reader.read(file) == b"one"
    file.unlink()
    assert reader.has_changed()
    assert reader.read_all() == {file: b"one"}


def test_file_open_for_writing_is_not_read(tmp_path: Path) -> None:
    reader, file = StableReader(), tmp_path / "f"
    with file.open("w") as writer:
        writer.write("ha")
        reader.open_scan()
        with pytest.raises(FileBusy):
            reader.read(file)
        assert is_open_for_writing(file)
    assert reader.read(file) == b"ha"
    assert not is_open_for_writing(file)


def test_file_open_for_a_long_time_is_read(tmp_path: Path) -> None:
    reader, file = Late(), tmp_path / "f"
    with file.open("w") as writer:
        writer.write("kept open")
        writer.flush()
        reader.open_scan()
        assert reader.read(file) == b"kept open"


def test_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = StableReader(), tmp_path / "f"
    file.touch()
    os.truncate(file, 50_000_000)
    monkeypatch.setattr(os, "open", None)
    reader.open_scan()
    with pytest.raises(InvalidDesiredState, match=f"is 50000000 bytes long; at most {MAX_BYTES}"):
        reader.read(file)


def test_pipe_or_folder_is_refused_without_waiting(tmp_path: Path) -> None:
    reader = StableReader()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    reader.open_scan()
    for name in ("pipe", ".", "loop"):
        with pytest.raises(InvalidDesiredState):
            reader.read(tmp_path / name)


def test_links_are_followed(tmp_path: Path) -> None:
    reader = StableReader()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    (tmp_path / "current").symlink_to("one")
    reader.open_scan()
    assert reader.read(tmp_path / "current/f") == b"one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "current")
    assert reader.has_changed()
    reader.open_scan()
    assert reader.read(tmp_path / "current/f") == b"two"


def test_the_null_device_is_an_empty_file_and_other_kinds_are_named(tmp_path: Path) -> None:
    reader = StableReader()
    reader.open_scan()
    assert reader.read(Path("/dev/null")) == b""
    (tmp_path / "link.env").symlink_to("/dev/null")
    assert reader.read(tmp_path / "link.env") == b""
    assert not reader.has_changed()
    os.mkfifo(tmp_path / "pipe.env")
    for path, kind in (
        (tmp_path / "pipe.env", "a pipe"),
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(InvalidDesiredState, match=f"is {kind}; a regular file is needed"):
            reader.read(path)
