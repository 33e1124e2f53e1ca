"""The ledger on disk: encoding, decoding, and what earlier versions wrote."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from reconciler.controller.ledger_codec import LATER_KEYS, StoredLedger, decode_ledger, encode_ledger
from reconciler.model.backoff import Failure
from reconciler.model.fingerprint import OFF, DesiredFingerprint
from reconciler.model.ledger import (
    UNKNOWN,
    BuiltFrom,
    ContainerExit,
    HeldChange,
    Ledger,
    Mounted,
    Named,
    ParentRuns,
    ReadySince,
    ReadyWindow,
    Renaming,
)
from tests.support.fixtures.builders import NOW

RELEASE_0_1 = Path(__file__).parents[2] / "support/data/release_0_1/state/ledger.json"


def full() -> Ledger:
    built = BuiltFrom(
        "d", {"x": "1"}, "sha", ("net",), 7.5, {"/a": Mounted("file", "1")}, {"/a": 2}, "i", "c"
    )
    return Ledger(
        made={"id-a": built, "id-b": UNKNOWN},
        making={"a": BuiltFrom("d", {}, "sha")},
        live={"a": "id-a"},
        failures={"a": Failure(3, 77.0, "in", "no", "why", 5.0, "id-a")},
        settled={"a": DesiredFingerprint(on=True, definition="d")},
        restarted={"a": 1.5},
        followed={"a": "id@1"},
        tied={"a": ParentRuns("id-a@1.0", {"db": "id-db@0.5"})},
        stopped={"id-a": 9.25},
        ready={"a": ReadySince("id-a", 1.0, 2.0)},
        exits={"a": ContainerExit("id-a", 5.0, 137, False, ("last line",))},
        durations={"a": (1.0, 2.0)},
        brackets={"a": ReadyWindow(1.0, 2.0)},
        changes={"main": HeldChange("m", 3.5)},
        at_work={"id-c": 4.5},
        cut={"id-d": 5.5},
        hooks={"id-a": True},
        named=Named("old", ("/srv/compose.yaml",)),
        renaming=Renaming("new", 6.5, held=False),
        boot="b",
        surplus={"a": HeldChange("id-e", 7.5)},
        halted={"id-f": 8.5},
        completed={"b": BuiltFrom("d", {}, "sha")},
    )


def raw() -> dict[str, object]:
    value: dict[str, object] = json.loads(encode_ledger(full()))
    return value


def test_a_saved_ledger_is_restored_without_monotonic_times() -> None:
    before = full()
    after = decode_ledger(encode_ledger(before), NOW)
    assert after.failures["a"] == before.failures["a"]._replace(due=NOW.mono)
    stored = {one.name for one in fields(StoredLedger)} - {"schema", "failures"}
    assert {name: getattr(after, name) for name in stored} == {name: getattr(before, name) for name in stored}
    assert after.live == after.ready == {}


def test_keys_and_lists_on_disk_are_those_of_earlier_versions() -> None:
    assert raw() == {
        "schema": 1,
        "made": {
            "id-a": ["d", {"x": "1"}, "sha", ["net"], 7.5, {"/a": ["file", "1", ""]}, {"/a": 2}, "i", "c"],
            "id-b": ["", {}, "", [], 0.0, {}, {}, "", ""],
        },
        "making": {"a": ["d", {}, "sha", [], 0.0, {}, {}, "", ""]},
        "failures": {"a": [3, "in", "no", "why", 5.0, "id-a"]},
        "settled": {"a": "on d "},
        "restarted": {"a": 1.5},
        "followed": {"a": "id@1"},
        "tied": {"a": ["id-a@1.0", {"db": "id-db@0.5"}]},
        "stopped": {"id-a": 9.25},
        "exits": {"a": ["id-a", 5.0, 137, False, ["last line"]]},
        "durations": {"a": [1.0, 2.0]},
        "brackets": {"a": [1.0, 2.0]},
        "changes": {"main": ["m", 3.5]},
        "at_work": {"id-c": 4.5},
        "cut": {"id-d": 5.5},
        "hooks": {"id-a": True},
        "named": ["old", ["/srv/compose.yaml"]],
        "renaming": ["new", 6.5, False],
        "boot": "b",
        "surplus": {"a": ["id-e", 7.5]},
        "halted": {"id-f": 8.5},
        "completed": {"b": ["d", {}, "sha", [], 0.0, {}, {}, "", ""]},
    }


def test_shorter_lists_and_missing_keys_of_earlier_versions_get_their_defaults() -> None:
    later = {"tied", "changes", "at_work", "cut", "hooks", "named", "renaming", "boot", "surplus"}
    value = {name: held for name, held in raw().items() if name not in later}
    value["made"] = {
        "five": ["d", {}, "sha", [], 1.5],
        "seven": ["d", {}, "sha", [], 1.5, {"/a": ["file", "1", ""]}, {"/a": 2}],
    }
    value["failures"] = {"a": [3, "in", "no", "why", 5.0]}
    ledger = decode_ledger(json.dumps(value), NOW)
    assert ledger.made["five"] == BuiltFrom("d", {}, "sha", at=1.5)
    assert ledger.made["seven"] == BuiltFrom(
        "d", {}, "sha", at=1.5, mounts={"/a": Mounted("file", "1")}, churn={"/a": 2}
    )
    assert ledger.failures["a"] == Failure(3, NOW.mono, "in", "no", "why", 5.0)
    assert (ledger.tied, ledger.named, ledger.boot, ledger.surplus) == ({}, None, "", {})


def test_the_ledger_of_release_0_1_is_read() -> None:
    content = RELEASE_0_1.read_bytes()
    ledger = decode_ledger(content, NOW)
    assert ledger.made
    assert json.loads(encode_ledger(ledger)) == LATER_KEYS | json.loads(content)


def test_the_desired_state_that_earlier_versions_stored_still_matches() -> None:
    stored = {"a": "on d 2.5", "b": "off", "c": "on d ", "d": "on d x3 2.5", "e": "?", "f": "on d x 1"}
    assert decode_ledger(json.dumps(raw() | {"settled": stored}), NOW).settled == {
        "a": DesiredFingerprint(True, "d", 1, 2.5),
        "b": OFF,
        "c": DesiredFingerprint(True, "d"),
        "d": DesiredFingerprint(True, "d", 3, 2.5),
        "e": DesiredFingerprint(True, "?"),
        "f": DesiredFingerprint(True, "on d x 1"),
    }


def test_unknown_keys_of_later_versions_are_ignored() -> None:
    assert decode_ledger(json.dumps(raw() | {"later": 1}), NOW).boot == "b"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        [],
        {"schema": 99},
        {"schema": 1},
        raw() | {"made": {"x": [1]}},
        raw() | {"made": [1]},
        raw() | {"stopped": 3},
        raw() | {"settled": {"a": None}},
    ],
)
def test_an_invalid_ledger_is_rejected(broken: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_ledger(json.dumps(broken), NOW)


def test_an_error_has_one_line_and_no_value() -> None:
    with pytest.raises(ValueError, match=r"^settled\.a: Input should be a valid string$"):
        decode_ledger(json.dumps(raw() | {"settled": {"a": ["a secret"]}}), NOW)


def test_text_that_is_not_unicode_is_stored() -> None:
    ledger = Ledger(settled={"a": DesiredFingerprint(on=True, definition="\udcff")})
    assert decode_ledger(encode_ledger(ledger), NOW).settled == ledger.settled
