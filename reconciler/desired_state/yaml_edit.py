"""Edit the text of ``groups.yaml`` in place: only the changed value is replaced.

Writing the whole file from values would lose comments, order, quoting and line ends. The result is parsed and
compared with the intended states, so a layout that these few rules do not support is refused, never damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from reconciler.desired_state.assemble import parse_group_states
from reconciler.desired_state.schema import GROUPS
from reconciler.errors import InvalidDesiredState, WriteRefused
from reconciler.host.yaml_positions import decode, parse_nodes
from reconciler.model.desired import GroupState, Suspension
from reconciler.model.units import format_time, parse_time

_KEYS = ("force", "suspend", "restarted_at", "accepted_at")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 ._/-]*[A-Za-z0-9]")
_WORDS = frozenset({"true", "false", "on", "off", "yes", "no", "null", "y", "n"})
_COMMENT = re.compile(r"(?<!\S)#[^\r\n]*")
_ALIAS = re.compile(r"\s*:\s*(\*[^\s,\]}]+)")
_SPELLINGS = {
    "on": ("on", "off"),
    "off": ("on", "off"),
    "true": ("true", "false"),
    "false": ("true", "false"),
}


class EditedGroups(NamedTuple):
    """A changed ``groups.yaml`` and the states that it means, in its order."""

    content: bytes
    states: Mapping[str, GroupState]


class _Pair(NamedTuple):
    key: Node
    value: Node


class _Splice(NamedTuple):
    start: int
    end: int
    text: str


def apply_edit(content: bytes, states: Mapping[str, GroupState]) -> EditedGroups:
    """Return ``content`` with the entries of ``states`` changed and every other byte as before.

    Raises:
        InvalidDesiredState: ``content`` can't be parsed.
        WriteRefused: ``cannot_edit``; the layout (anchors, merged keys) allows no such small edit.
    """
    before = parse_group_states(content)
    text = decode(GROUPS, content)
    states = {name: _writable(state) for name, state in states.items()}
    for name, state in states.items():
        if before.get(name) != state:
            text = _edited_text(text, name, before.get(name), state)
    result = text.encode()
    return EditedGroups(result, _verified(result, {**before, **states}))


def _writable(state: GroupState) -> GroupState:
    # Times are written to the microsecond, so the intended state has to be rounded like the parsed one.
    suspend = state.suspend
    if suspend:
        suspend = Suspension(_rounded(suspend.until), suspend.reason)
    return replace(
        state,
        suspend=suspend,
        restarted_at=_rounded(state.restarted_at),
        accepted_at=_rounded(state.accepted_at),
    )


def _rounded(time: float | None) -> float | None:
    return None if time is None else parse_time(format_time(time))


def _verified(result: bytes, intended: Mapping[str, GroupState]) -> Mapping[str, GroupState]:
    try:
        parsed = parse_group_states(result)
    except InvalidDesiredState as error:
        raise _refused(str(error)) from error
    if [*parsed.items()] != [*intended.items()]:
        raise _refused("other groups would change as well")
    return parsed


def _refused(reason: str) -> WriteRefused:
    return WriteRefused(
        "cannot_edit",
        f"the layout of {GROUPS} allows no edit in one place ({reason})",
        "edit the file by hand, or write the group as `name: on`",
    )


def _edited_text(text: str, name: str, before: GroupState | None, state: GroupState) -> str:
    pair = _entry_pair(text, name)
    splice = _replace_alias(text, pair, state) or _replace_scalar(text, pair, state)
    if splice:
        return _apply(text, splice)
    # From last to first, because each new key is inserted directly after `state`.
    for key in reversed(_KEYS):
        if getattr(before, key, None) != getattr(state, key):
            text = _with_key(text, name, key, state)
    return text if before and before.on == state.on else _with_switch(text, name, state)


def _entry_pair(text: str, name: str) -> _Pair:
    root = parse_nodes(GROUPS, text.encode())
    groups = _pair(root, "groups")
    pair = _pair(groups.value, name) if groups else None
    if pair is None:
        raise _refused(f"{name} has no entry")
    return pair


def _entry_mapping(text: str, name: str) -> MappingNode:
    entry = _entry_pair(text, name).value
    if not isinstance(entry, MappingNode):
        raise _refused(f"{name} is neither on, off nor a mapping")
    return entry


def _pair(node: Node, name: str) -> _Pair | None:
    if not isinstance(node, MappingNode):
        return None
    return next((_Pair(key, value) for key, value in node.value if key.value == name), None)


def _apply(text: str, splice: _Splice) -> str:
    return text[: splice.start] + splice.text + text[splice.end :]


def _replace_alias(text: str, pair: _Pair, state: GroupState) -> _Splice | None:
    # The node of an alias is the node of its anchor, so the position of the alias is found in the text.
    match = _ALIAS.match(text, _end(pair.key))
    return _Splice(match.start(1), match.end(1), _one_line_state(state, "on")) if match else None


def _replace_scalar(text: str, pair: _Pair, state: GroupState) -> _Splice | None:
    if not isinstance(pair.value, ScalarNode):
        return None
    start, end = pair.value.start_mark.index, _end(pair.value)
    return _Splice(start, end, _one_line_state(state, text[start:end]))


def _one_line_state(state: GroupState, current: str) -> str:
    switch = _switch_text(state.on, current)
    extras = [f"{key}: {value}" for key in _KEYS if (value := _value_text(state, key))]
    return f"{{{', '.join([f'state: {switch}', *extras])}}}" if extras else switch


def _switch_text(on: bool, current: str) -> str:
    bare = current.strip("\"'")
    words = _SPELLINGS.get(bare.lower(), ("on", "off"))
    word = words[0] if on else words[1]
    if bare.isupper():
        word = word.upper()
    elif bare.istitle():
        word = word.title()
    quote = current[0] if current[:1] in {'"', "'"} and current[-1:] == current[:1] else ""
    return f"{quote}{word}{quote}"


def _value_text(state: GroupState, key: str) -> str:
    """Return the text of the value of ``key``, '' to remove the key."""
    value = getattr(state, key)
    if isinstance(value, Suspension):
        return _suspension(value)
    if isinstance(value, bool):
        return "true" if value else ""
    return "" if value is None else format_time(value)


def _suspension(value: Suspension) -> str:
    parts = [f"until: {format_time(value.until)}"] if value.until is not None else []
    parts += [f"reason: {_quoted(value.reason)}"] if value.reason else []
    return f"{{{', '.join(parts)}}}" if parts else "true"


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and "  " not in text:
        return text
    # JSON text is YAML, except for characters that only YAML requires to be escaped.
    return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(text, ensure_ascii=False))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _with_key(text: str, name: str, key: str, state: GroupState) -> str:
    entry = _entry_mapping(text, name)
    pair, new_text = _pair(entry, key), _value_text(state, key)
    if pair is None:
        return _apply(text, _insertion(text, entry, f"{key}: {new_text}"))
    comments = _inner_comments(text, pair)
    if comments:
        # The whole value is replaced, so first move the comments inside it in front of the key.
        place = _before_key(text, entry, pair, comments)
        blank = _Splice(_end(pair.key), _true_end(text, pair.value), ": true")
        text = _apply(_apply(text, blank), place)
        return _with_key(text, name, key, state)
    if new_text:
        return _apply(text, _replacement(text, pair, new_text))
    return _without_key(text, entry, pair)


def _inner_comments(text: str, pair: _Pair) -> list[str]:
    """Return the comments between the parts of a value, in their order."""
    place, end = _end(pair.key), _true_end(text, pair.value)
    comments: list[str] = []
    for start, after in [*_scalars(pair.value, place, end), (end, end)]:
        comments += (comment.rstrip() for comment in _COMMENT.findall(text[place:start]))
        place = after
    return comments


def _scalars(node: Node, first: int, last: int) -> list[tuple[int, int]]:
    """Return start and end of the scalars below ``node``, without those outside the bounds (aliases)."""
    if isinstance(node, MappingNode):
        parts = [span for pair in node.value for part in pair for span in _scalars(part, first, last)]
        return sorted(parts)
    start, end = node.start_mark.index, _end(node)
    return [(start, end)] if first <= start and end <= last else []


def _before_key(text: str, entry: MappingNode, pair: _Pair, comments: list[str]) -> _Splice:
    start = pair.key.start_mark.index
    gap = _newline(text) + " " * pair.key.start_mark.column
    # In braces, the line may have other keys before this one; a comment needs a blank before it.
    lead = " " if entry.flow_style else ""
    return _Splice(start, start, lead + "".join(comment + gap for comment in comments))


def _with_switch(text: str, name: str, state: GroupState) -> str:
    pair = _pair(_entry_mapping(text, name), "state")
    if pair is None:
        raise _refused(f"the state of {name} is defined elsewhere")
    start, end = pair.value.start_mark.index, _end(pair.value)
    return _apply(text, _Splice(start, end, _switch_text(state.on, text[start:end])))


def _replacement(text: str, pair: _Pair, new_text: str) -> _Splice:
    value = pair.value
    if isinstance(value, MappingNode) and not value.flow_style:
        return _Splice(_end(pair.key), _true_end(text, value), f": {new_text}")
    return _Splice(value.start_mark.index, _true_end(text, value), new_text)


def _insertion(text: str, entry: MappingNode, added: str) -> _Splice:
    state = _pair(entry, "state")
    if state is None:
        raise _refused("its state is defined elsewhere")
    if entry.flow_style:
        end = _end(state.value)
        return _Splice(end, end, f", {added}")
    start = _line_start(text, state.key.start_mark.index)
    end = _line_end(text, _end(state.value))
    return _Splice(end, end, f"{_newline(text)}{text[start : state.key.start_mark.index]}{added}")


def _without_key(text: str, entry: MappingNode, pair: _Pair) -> str:
    start, end = pair.key.start_mark.index, _true_end(text, pair.value)
    if entry.flow_style:
        return _without_flow_key(text, entry, start, end)
    line_start, line_end = _line_start(text, start), _line_end(text, end)
    if text[end:line_end].strip():
        # Keep the comment after it, on its own line.
        return text[:start] + text[end:line_end].lstrip() + text[line_end:]
    if line_end == len(text):
        # A file without a newline at its end stays without one.
        line_start = _line_end(text, line_start - 1) if line_start else 0
    return text[:line_start] + text[_past_newline(text, line_end) :]


def _without_flow_key(text: str, entry: MappingNode, start: int, end: int) -> str:
    first = entry.value[0][0].start_mark.index == start
    comma = _comma(text, end) if first else _comma_before(text, entry, start)
    if comma is None:
        return text[:start] + text[end:]
    if first:
        after = comma + 1
        return text[:start] + text[end:comma] + text[after:].lstrip(" ")
    gap = text[comma + 1 : start]
    return text[:comma] + ("" if not gap.strip(" ") else gap.rstrip(" ")) + text[end:]


def _comma_before(text: str, entry: MappingNode, start: int) -> int | None:
    ends = [_true_end(text, value) for _, value in entry.value if value.start_mark.index < start]
    return _comma(text, max(ends))


def _comma(text: str, index: int) -> int | None:
    """Return the position of the comma that follows ``index``, apart from blanks and comments; None: none."""
    while index < len(text) and text[index] != ",":
        if text[index] == "#":
            index = _line_end(text, index)
        elif not text[index].isspace():
            return None
        else:
            index += 1
    return index if index < len(text) else None


def _end(node: Node) -> int:
    return int(node.end_mark.index)


def _true_end(text: str, node: Node) -> int:
    """Return the end of a value; the end mark of a block mapping is at the next token after it."""
    while isinstance(node, MappingNode) and not node.flow_style and node.value:
        node = node.value[-1][1]
    end = _end(node)
    while end > node.start_mark.index and text[end - 1].isspace():
        end -= 1
    return end


def _line_start(text: str, index: int) -> int:
    start = text.rfind("\n", 0, index) + 1
    if text[start:index].strip(" \ufeff"):
        raise _refused("a line has more than one key")
    return start


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" else end


def _past_newline(text: str, index: int) -> int:
    if text.startswith("\r\n", index):
        return index + 2
    return min(index + 1, len(text))


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
