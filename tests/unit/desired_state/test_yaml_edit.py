"""An edit changes one entry and no other byte, in any layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired_state.schema import read_groups
from reconciler.desired_state.yaml_edit import apply_edit
from reconciler.errors import InvalidDesiredState, WriteRefused
from reconciler.host.yaml_positions import parse_document
from reconciler.model.desired import GroupState, Suspension

T = 1795456800.0
T_TEXT = "2026-11-23T18:00:00Z"
UNTIL = f"{{state: on, suspend: {{until: {T_TEXT}}}}}"


def meaning(content: bytes) -> dict[str, GroupState]:
    read = read_groups(parse_document("groups.yaml", content))
    assert read.value, read.mistakes
    return {name: entry.group_state() for name, entry in read.value.groups.items()}


def edit(text: str, **changes: dict[str, Any]) -> str:
    """Return ``text`` with these fields of these groups changed; tries both kinds of line ends."""
    results = []
    for newline in ("\n", "\r\n"):
        content = text.replace("\n", newline).encode()
        before = meaning(content)
        states = {name: replace(before[name], **fields) for name, fields in changes.items()}
        after, stored = apply_edit(content, states)
        assert meaning(after) == stored == {**before, **states}
        results.append(after.decode().replace(newline, "\n"))
        assert newline != "\r\n" or "\n" not in after.decode().replace("\r\n", "")
    assert results[0] == results[1]
    return results[0]


def test_switch_keeps_quotes_spelling_and_comments() -> None:
    before = "groups:\n  a: on   # why\n  b: \"off\"\n  c: 'true'\n  d: TRUE\n  e: Off"
    after = "groups:\n  a: off   # why\n  b: \"on\"\n  c: 'false'\n  d: FALSE\n  e: On"
    assert edit(before, **{n: {"on": n in "be"} for n in "abcde"}) == after


def test_entry_with_the_same_meaning_stays() -> None:
    text = "groups:\n  a: {state: on, force: false, suspend: off}\n"
    assert edit(text, a={"on": True, "force": False, "suspend": None}) == text


def test_word_becomes_a_mapping_for_more_fields() -> None:
    before = 'groups:\n  a: on # x\n  b: "off"\n'
    changes: dict[str, Any] = {"force": True, "suspend": Suspension(T, "camera: work"), "restarted_at": T}
    assert edit(before, a=changes, b={"accepted_at": T + 0.5}) == (
        f'groups:\n  a: {{state: on, force: true, suspend: {{until: {T_TEXT}, reason: "camera: work"}}, '
        f"restarted_at: {T_TEXT}}} # x\n"
        '  b: {state: "off", accepted_at: 2026-11-23T18:00:00.500000Z}\n'
    )


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("{state: on, force: true}", {"force": False}, "{state: on}"),
        ("{force: true, state: on}", {"force": False}, "{state: on}"),
        ("{ force: true, state: off, }", {"force": False, "on": True}, "{ state: on, }"),
        ("{state: on, force: true, suspend: true}", {"force": False}, "{state: on, suspend: true}"),
        ("{state: on,}", {"restarted_at": T}, f"{{state: on, restarted_at: {T_TEXT},}}"),
        ("{state: on, suspend: true}", {"suspend": Suspension(T)}, UNTIL),
        ("{state: on, suspend: {reason: x}}", {"suspend": Suspension()}, "{state: on, suspend: true}"),
        ("{state: on, suspend: {reason: x}}", {"suspend": Suspension(None, "y z")},
         "{state: on, suspend: {reason: y z}}"),
        (f"{{state: on, restarted_at: '{T_TEXT}'}}", {"restarted_at": 0.0},
         "{state: on, restarted_at: 1970-01-01T00:00:00Z}"),
        ('{"state": "on", "force": true}', {"on": False, "force": False}, '{"state": "off"}'),
    ],
)  # fmt: skip
def test_mapping_in_braces(before: str, changes: dict[str, Any], after: str) -> None:
    assert edit(f"groups:\n  a: {before}  # c\n  b: on", a=changes) == f"groups:\n  a: {after}  # c\n  b: on"


def test_braces_over_several_lines_keep_comments() -> None:
    inside = "state: on, # one, two\n    force: true, # three\n    suspend: true # four\n"
    before = f"groups:\n  a: {{\n    {inside}  }}\n"
    after = edit(before, a={"force": False, "suspend": None})
    for comment in ("# one, two", "# three", "# four"):
        assert comment in after


def test_indented_mapping() -> None:
    before = (
        "groups:\n  a:\n    state: on # c1\n    # c2\n    force: true\n    suspend:\n"
        f"      until: {T_TEXT} # c3\n      reason: x # c4\n  # c5\n  b: off"
    )
    assert edit(before, a={"force": False}) == before.replace("    force: true\n", "")
    assert edit(before, a={"on": False}) == before.replace("on #", "off #")
    assert edit(before, a={"accepted_at": T}) == before.replace(
        "# c1\n", f"# c1\n    accepted_at: {T_TEXT}\n"
    )
    assert edit(before, a={"suspend": Suspension()}) == before.replace(
        f"suspend:\n      until: {T_TEXT} # c3\n      reason: x #", "# c3\n    suspend: true #"
    )


def test_comment_after_a_removed_key_stays() -> None:
    before = "groups:\n  a:\n    force: true # because\n    state: on\n"
    assert edit(before, a={"force": False}) == before.replace("force: true ", "")


def test_missing_newline_at_the_end_stays_missing() -> None:
    before = "groups:\n  a:\n    state: on\n    force: true"
    assert edit(before, a={"force": False}) == "groups:\n  a:\n    state: on"
    assert edit(before, a={"force": False, "restarted_at": T}) == (
        f"groups:\n  a:\n    state: on\n    restarted_at: {T_TEXT}"
    )


def test_all_groups_in_one_line() -> None:
    assert edit("groups: {a: on, b: off}", a={"force": True}, b={"on": True}) == (
        "groups: {a: {state: on, force: true}, b: on}"
    )


def test_alias_is_replaced_in_place() -> None:
    before = "groups:\n  a: &x on\n  b: *x # b\n  c: *x\n"
    assert edit(before, b={"on": False}) == before.replace("b: *x", "b: off")


@pytest.mark.parametrize(
    "before",
    [
        "groups:\n  a: &x on\n  b: *x\n",
        "groups:\n  b: &d {state: on}\n  a:\n    <<: *d\n    force: true\n",
        "x: &g {a: on}\ngroups:\n  <<: *g\n",
    ],
)
def test_edit_that_changes_other_groups_is_refused(before: str) -> None:
    with pytest.raises((WriteRefused, InvalidDesiredState)):
        apply_edit(before.encode(), {"a": GroupState(on=False)})


def test_broken_file_is_not_edited() -> None:
    with pytest.raises(InvalidDesiredState):
        apply_edit(b"groups: {a: on", {"a": GroupState(on=False)})


def test_times_are_rounded_to_what_the_file_holds() -> None:
    state = GroupState(on=True, restarted_at=1234567890.123456789)
    content, stored = apply_edit(b"groups: {a: on}", {"a": state})
    assert meaning(content) == stored
    assert stored["a"].restarted_at == pytest.approx(1234567890.123457, abs=1e-6)


# --- any layout -------------------------------------------------------------------------------------------

TIMES = st.none() | st.integers(0, 2_000_000_000).map(float)
REASONS = st.text(max_size=12).filter(lambda text: text.isprintable()) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6
)
STATES = st.builds(
    GroupState,
    on=st.booleans(),
    force=st.booleans(),
    suspend=st.none() | st.builds(Suspension, TIMES, REASONS),
    restarted_at=TIMES,
    accepted_at=TIMES,
)
COMMENTS = st.sampled_from(["", "  # a, comment: {here}", " #", "   "])
SWITCHES = st.sampled_from(["on", "off", "true", "false", '"on"', "'off'", "True", "OFF"])


@st.composite
def entries(draw: st.DrawFn, indent: str) -> str:
    """One group's value in any layout that people use, to the end of its last line."""
    pairs = [("state", draw(SWITCHES))]
    if draw(st.booleans()):
        pairs.append(("force", draw(st.sampled_from(["true", "false"]))))
    if draw(st.booleans()):
        pairs.append(
            ("suspend", draw(st.sampled_from(["true", "{until: 2026-11-24T06:00:00Z}", "{reason: 'a, b'}"])))
        )
    if draw(st.booleans()):
        pairs.append(
            ("restarted_at", draw(st.sampled_from(["2026-11-24T06:00:00Z", '"2026-11-24T06:00:00+02:00"'])))
        )
    pairs = draw(st.permutations(pairs))
    kind = draw(st.sampled_from(["word", "braces", "lines", "open braces"]))
    if kind == "word":
        return f" {pairs[0][1] if pairs[0][0] == 'state' else 'on'}{draw(COMMENTS)}\n"
    if kind == "braces":
        gap = draw(st.sampled_from(["", " "]))
        comma = draw(st.sampled_from(["", ","]))
        inside = ", ".join(f"{key}: {value}" for key, value in pairs)
        return f" {{{gap}{inside}{comma}{gap}}}{draw(COMMENTS)}\n"
    if kind == "open braces":
        inside = "".join(f"{indent}  {key}: {value},{draw(COMMENTS)}\n" for key, value in pairs)
        return f" {{{draw(COMMENTS)}\n{inside}{indent}}}{draw(COMMENTS)}\n"
    text = draw(COMMENTS) + "\n"
    for key, value in pairs:
        deeper = value.startswith("{until") and draw(st.booleans())
        below = f"{draw(COMMENTS)}\n{indent}    until: 2026-11-24T06:00:00Z"
        text += f"{indent}  {key}: {below if deeper else value}{draw(COMMENTS)}\n"
        text += draw(st.sampled_from(["", f"{indent}  # between\n", "\n", "# at the margin\n"]))
    return text


@st.composite
def files(draw: st.DrawFn) -> str:
    indent = draw(st.sampled_from(["  ", "    "]))
    text = draw(st.sampled_from(["", "# head\n", "---\n", "\ufeff"])) + f"groups:{draw(COMMENTS)}\n"
    for name in "abc":
        text += draw(st.sampled_from(["", f"{indent}# before {name}\n", "\n"]))
        text += f"{indent}{name}:" + draw(entries(indent))
    text = text if draw(st.booleans()) else text.rstrip("\n")
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(files(), st.sampled_from("abc"), STATES)
def test_any_edit_of_any_layout(text: str, name: str, state: GroupState) -> None:
    content = text.encode()
    before = meaning(content)
    after, _ = apply_edit(content, {name: state})
    assert meaning(after) == {**before, name: state}
    start, end = content.index(f"{name}:".encode()), len(content)
    if name != "c":
        following = chr(ord(name) + 1)
        end = content.index(f"\n{indent_of(text)}{following}:".encode(), start)
    # All bytes before and after the group are unchanged.
    assert after.startswith(content[:start])
    assert after.endswith(content[end:])
    comments = [
        part for line in text.splitlines() if "#" in line for part in [line[line.index("#") :].strip()]
    ]
    for comment in comments:
        assert after.decode().count(comment) >= 1
    if before[name] == state:
        assert after == content


def indent_of(text: str) -> str:
    line = next(line for line in text.splitlines() if line.strip().startswith("a:"))
    return line[: len(line) - len(line.lstrip())]


@pytest.mark.parametrize(
    "suspend",
    [
        "suspend:  # first\n      # second\n      until: 2026-11-24T06:00:00Z  # third\n      reason: a b\n",
        "suspend: {  # first\n        until: 2026-11-24T06:00:00Z,  # second\n"
        "        # third\n        reason: 'a # b'}\n",
    ],
)
@pytest.mark.parametrize("value", [None, Suspension(reason="other")])
def test_comments_inside_a_replaced_value_stay(suspend: str, value: Suspension | None) -> None:
    text = f"groups:\n  a:\n    {suspend}    state: on\n  b: off\n"
    after = apply_edit(text.encode(), {"a": GroupState(on=True, suspend=value)}).content.decode()
    assert [after.count(f"# {word}") for word in ("first", "second", "third")] == [1, 1, 1]
    assert "# b" not in after
    assert after.endswith("  b: off\n")


@pytest.mark.parametrize("value", [None, Suspension(reason="other")])
def test_comments_inside_a_value_in_braces_stay(value: Suspension | None) -> None:
    text = "groups:\n  a: {force: true, suspend: {  # first\n      reason: x}, state: on}\n"
    after = apply_edit(text.encode(), {"a": GroupState(on=True, force=True, suspend=value)}).content.decode()
    assert after.count("# first") == 1
