"""Parse YAML to plain values, with the line and column of every value and key.

Follows the YAML 1.2 rules, where ``on`` is a word and not a boolean. Tags construct nothing, the expansion
of aliases is bounded, and a duplicate key is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from reconciler.errors import InvalidDesiredState, Mistake

MAX_BYTES = 1 << 20
"""The largest file that is read; far above any real stack file. Parsing a larger one would take seconds."""

_MAX_NODES = 30_000
"""Maximum number of nodes in a file; parsing each takes some 30 µs."""

_MAX_DEPTH = 60
_TOO_MANY = "far too many values: aliases (*name) multiply, or it is nested too deep"
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_KNOWN_TAGS = frozenset(
    _TAG + name
    for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
)

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """A position in a file; both fields count from 1."""

    line: int
    column: int


_NOWHERE = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file. ``values`` and ``keys`` map a path to the position of its value and its key."""

    name: str
    plain: Any
    values: Mapping[Path, Position] = field(default_factory=dict)
    keys: Mapping[Path, Position] = field(default_factory=dict)

    def at(self, path: Path, *, key: bool = False) -> Position:
        """Return the position of ``path``, or that of its nearest parent with a known position."""
        while path:
            order = (self.keys, self.values) if key else (self.values, self.keys)
            for positions in order:
                if path in positions:
                    return positions[path]
            path = path[:-1]
        return self.values.get((), Position(1, 1))

    def mistake(self, path: Path, message: str, *, key: bool = False) -> Mistake:
        """Return a mistake at the value (or the key) at ``path``."""
        position = self.at(path, key=key)
        return Mistake(self.name, position.line, position.column, message)


def parse_document(name: str, content: bytes, *, lenient: bool = False) -> Document:
    """Parse the document in ``content``; mistakes name the file ``name``.

    ``lenient`` is for files that Compose validates: it accepts tags, duplicate keys and several documents,
    and returns the first document.

    Raises:
        InvalidDesiredState: with one mistake, since parsing stops at the first syntax error.
    """
    node = _compose(name, content, lenient=True) if lenient else parse_nodes(name, content)
    return _PlainValues(name, lenient).document(node)


def tree(name: str, content: bytes) -> Node:
    """Return the nodes of the first document of a file, with the rules of a ``lenient`` parse.

    Raises:
        InvalidDesiredState: as ``parse_document``.
    """
    return _compose(name, content, lenient=True)


@lru_cache(maxsize=8)
def parse_nodes(name: str, content: bytes) -> Node:
    """Return the node tree of ``content``; its marks count characters of the decoded text.

    Cached, since an edit needs the tree of the content that was just read. Do not modify the tree.

    Raises:
        InvalidDesiredState: not UTF-8, empty, too long, or not YAML.
    """
    return _compose(name, content, lenient=False)


def _compose(name: str, content: bytes, *, lenient: bool) -> Node:
    text = decode(name, content)
    try:
        loader = YAML(typ="safe", pure=True)
        loader.Composer = _Bounded
        node: Node | None = next(iter(loader.compose_all(text)), None) if lenient else loader.compose(text)
    except ReaderError as error:
        position = _position_at(text, error.position)
        raise _invalid(name, position, _unprintable(error.character)) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else _NOWHERE
        raise _invalid(name, position, _reworded(error, text)) from None
    except RecursionError:
        raise _invalid(name, _NOWHERE, "nested too deeply to be read") from None
    except (YAMLError, ValueError) as error:
        raise _invalid(name, _NOWHERE, f"is not YAML: {error}") from None
    if node is None:
        raise _invalid(name, Position(1, 1), "the file holds no values, only comments or blank lines")
    return node


def decode(name: str, content: bytes) -> str:
    """Decode the text of a file.

    Raises:
        InvalidDesiredState: empty, over ``MAX_BYTES``, not UTF-8, or with a NUL character.
    """
    if len(content) > MAX_BYTES:
        raise _invalid(name, _NOWHERE, f"is {len(content)} bytes long; at most {MAX_BYTES} are read")
    if not content.strip():
        raise _invalid(name, _NOWHERE, "the file is empty")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        raise _invalid(name, Position(line, column), f"byte {error.start} is not UTF-8 text") from None
    if "\0" in text:
        raise _invalid(name, _position_at(text, text.index("\0")), _unprintable("\0"))
    return text


def _invalid(name: str, position: Position, message: str) -> InvalidDesiredState:
    return InvalidDesiredState((Mistake(name, position.line, position.column, message),))


def _position_at(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - before.rfind("\n"))


def _unprintable(character: object) -> str:
    code = character if isinstance(character, int) else ord(str(character)[:1] or "\0")
    hint = " (the file may have been cut off by a crash)" if code == 0 else ""
    return f"YAML does not allow the character U+{code:04X}{hint}"


def _reworded(error: MarkedYAMLError, text: str) -> str:
    problem = str(error.problem or error.context or error)
    mark = error.problem_mark
    if "\\t" in problem or (mark and text[mark.index : mark.index + 1] == "\t"):
        return "a tab can't indent YAML; use spaces"
    if "expected a single document" in str(error.context):
        return "a second document begins here; one file holds one document"
    for sign, sentence in _SENTENCES.items():
        if sign in problem:
            return sentence + _context(error)
    return f"not valid YAML: {problem}{_context(error)}"


_SENTENCES = {
    "mapping values are not allowed": "a colon is not expected here; quote the text if it belongs to it, "
    "or check the indentation",
    "expected ',' or ']'": "a list in [brackets] is not closed, or a comma is missing",
    "expected ',' or '}'": "a mapping in {braces} is not closed, or a comma is missing",
    "could not find expected ':'": "a key without its colon",
    "unexpected end of stream": "the file ends in the middle of a quoted text",
    "found undefined alias": "an alias (*name) with no anchor (&name) before it",
    "expected <block end>": "the indentation does not fit the lines above, or a bracket or brace is missing",
    "expected the node content": "a value is missing here",
    _TOO_MANY: _TOO_MANY,
}


def _context(error: MarkedYAMLError) -> str:
    mark = error.context_mark
    if mark is None or error.problem_mark is None or mark.line == error.problem_mark.line:
        return ""
    return f" (it began on line {mark.line + 1})"


class _Bounded(Composer):
    """Stop at the node or depth limit instead of parsing a huge file for seconds."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        # Duplicate anchors are valid YAML: show no Python warning for them.
        self.warn_double_anchors = False
        self._left = _MAX_NODES
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._left -= 1
        self._depth += 1
        if self._left < 0 or self._depth > _MAX_DEPTH:
            raise ComposerError(None, None, _TOO_MANY, self.loader.parser.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _PlainValues:
    """Convert a node tree to plain values; bounded, since aliases can expand a small file to a huge value."""

    def __init__(self, name: str, lenient: bool) -> None:
        self._name = name
        self._lenient = lenient
        self._left = _MAX_NODES
        self._depth = 0
        self._values: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}

    def document(self, node: Node) -> Document:
        return Document(self._name, self._plain(node, ()), self._values, self._keys)

    def _plain(self, node: Node, path: Path) -> Any:
        self._left -= 1
        # The path can't serve as depth: it does not grow with merged mappings.
        self._depth += 1
        if self._left < 0 or self._depth > _MAX_DEPTH + 1:
            raise self._mistake(node, _TOO_MANY)
        value = self._value(node, path)
        self._depth -= 1
        return value

    def _value(self, node: Node, path: Path) -> Any:
        if node.tag not in _KNOWN_TAGS and not self._lenient:
            raise self._mistake(node, f"unknown tag {str(node.tag).replace(_TAG, '!!')}")
        self._values[path] = _position(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        # Merged mappings come first, so that the mapping's own keys and positions override them.
        values: dict[str, Any] = {}
        for source in self._merged(node):
            values = self._plain(source, path) | values
        self._values[path] = _position(node)
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._key(key_node)
            inner = (*path, key)
            if key in own and not self._lenient:
                first = self._keys[inner]
                raise self._mistake(key_node, f"the key {key!r} is given twice; first on line {first.line}")
            own.add(key)
            self._keys[inner] = _position(key_node)
            values[key] = self._plain(value_node, inner)
            if value_node.start_mark.index == value_node.end_mark.index:
                # The mark of an empty value is that of the next token, lines below.
                self._values[inner] = self._keys[inner]
        return values

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self._mistake(node, "a key is one word, not a list or a mapping")
        return str(node.value)

    def _merged(self, node: MappingNode) -> Iterator[MappingNode]:
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                if isinstance(source, MappingNode):
                    yield source
                elif not self._lenient:
                    raise self._mistake(value_node, "<< takes a mapping, or a list of mappings")

    def _mistake(self, node: Node, message: str) -> InvalidDesiredState:
        return _invalid(self._name, _position(node), message)


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


_TRUE = frozenset({"true", "on", "yes", "y"})


def _scalar(node: Node) -> Any:
    text: str = node.value
    kind = str(node.tag).removeprefix(_TAG)
    if kind == "bool":
        return text.lower() in _TRUE
    if kind == "null":
        return None
    if kind in {"int", "float"}:
        return _number(text, kind)
    return text


def _number(text: str, kind: str) -> Any:
    digits = text.replace("_", "")
    try:
        return int(digits, 0) if kind == "int" else float(digits)
    except ValueError:
        return text
