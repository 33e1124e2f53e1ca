"""Records of generations on disk: fields, and what earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.controller.progress import Progress, StepRecord
from reconciler.controller.progress_codec import decode_progress, encode_progress
from reconciler.generations.record import Record, decode_record, encode_record

RELEASE_0_1 = Path(__file__).parents[2] / "support/data/release_0_1/state/generations"

PROGRESS = Progress(
    generation=3,
    state="converged",
    done=1,
    total=1,
    began_at=1.5,
    ended_at=2.5,
    steps=(StepRecord("web", "start", "done", 2, "no", 1.5, 2.0, "stopped"),),
)
RECORD = Record(
    generation=3,
    revision="r",
    meaning="m",
    at=1.5,
    author="ann",
    reason="start web",
    changes=("web: off → on",),
    progress=encode_progress(PROGRESS),
    sources={"stack.yaml": "s"},
    hashes={"web": "h"},
    files=("/srv/compose.yaml",),
)


def test_a_record_is_restored_from_its_file() -> None:
    record = decode_record(encode_record(RECORD), 3)
    assert decode_progress(3, record.progress) == PROGRESS
    assert {**vars_of(record), "progress": ""} == {**vars_of(RECORD), "progress": ""}


def vars_of(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__slots__}


def test_fields_on_disk_are_those_of_earlier_versions() -> None:
    stored = json.loads(encode_record(RECORD))
    assert {name: stored[name] for name in ("schema", "generation", "sources", "changes", "files")} == {
        "schema": 1,
        "generation": 3,
        "sources": {"stack.yaml": "s"},
        "changes": ["web: off → on"],
        "files": ["/srv/compose.yaml"],
    }
    assert stored["progress"] == {
        "state": "converged",
        "reason": "",
        "message": "",
        "done": 1,
        "total": 1,
        "began_at": 1.5,
        "ended_at": 2.5,
        "steps": [["web", "start", "done", 2, "no", 1.5, 2.0, "stopped"]],
    }


@pytest.mark.parametrize("path", sorted(RELEASE_0_1.iterdir()), ids=lambda path: path.name)
def test_records_of_release_0_1_are_read(path: Path) -> None:
    content = path.read_bytes()
    record = decode_record(content, int(path.stem))
    assert json.loads(encode_record(record)) == {"values": "", "files": []} | json.loads(content)
    if record.outcome:
        assert decode_progress(record.generation, record.progress).state == record.outcome


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"generation": 4},
        {"sources": None},
        {"sources": {"a": 1}},
        {"changes": "text"},
        {"at": "soon"},
        {"author": 1},
        {"unknown": ""},
    ],
)
def test_a_damaged_record_is_rejected(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_record(json.dumps(json.loads(encode_record(RECORD)) | damage), 3)


def test_a_record_that_has_not_ended_has_no_progress() -> None:
    with pytest.raises(ValueError, match=r"^state: Field required$"):
        decode_progress(3, Record(generation=3, revision="r", meaning="m", at=1.5).progress)
