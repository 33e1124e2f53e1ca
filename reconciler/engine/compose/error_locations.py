"""Locates Compose's error messages in the files: adds file and line.

Compose names a line only if a file is not YAML; otherwise it names a key, which is looked up in the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.engine.compose.error_advice import NO_SERVICES, advised, unset_variables, with_unset
from reconciler.engine.compose.redact import without_values
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.untrusted import read_regular
from reconciler.host.yaml_positions import MAX_BYTES, tree

_LOG_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>.*)"$')
_LINE = re.compile(r"\bline (\d+)(?:, column (\d+))?: ")
_PREFIX = re.compile(r"^(?:validating|failed to parse|parsing) (?P<path>/.*?\.\w+): +")
_NAMED_FILE = re.compile(r"(?P<path>/[^\s:]+\.(?:ya?ml|json|env)|/[^\s:]*\.env)\b")
_NOT_FOUND = re.compile(r"\b(?:label|env) file (?P<path>/.*?) not found")
_EXTRA = re.compile(r"additional propert(?:y|ies) '(?P<key>[^']+)'")
_KEYS = (
    re.compile(r"\b(?P<keys>(?:services|networks|volumes|secrets|configs|include)\.[\w.\[\]-]*\w)"),
    re.compile(r"'(?P<keys>(?:services|networks|volumes|secrets|configs)\[[^']+)'"),
)
_SERVICE = re.compile(r"\bservice \"?(?P<name>[\w.-]+)\"?")
_UNDEFINED = re.compile(r"undefined (?P<kind>service|network|volume|config|secret) \"?(?P<name>[\w.-]+)\"?")
_CYCLE = re.compile(r"dependency cycle detected: (?P<name>[\w.-]+)")
_REMOTE_OFF = re.compile(r"remote resource is disabled by|COMPOSE_EXPERIMENTAL_(?:GIT|OCI)_REMOTE")
_REMOTE = re.compile(r"(?:https?|git|ssh|oci)://|git@|github\.com/")
_USERINFO = re.compile(r"://[^\s]*@")
_TOP_LEVEL = re.compile(r"(?P<key>services|networks|volumes|secrets|configs|include) must be ")
_LAST_VALUE = re.compile(r": \"?(?P<value>[^\s\"]+)\"?(?: and \S+)?$")
"""The value in a message that names no key: "invalid containerPort: abc"."""
_ANCHOR = re.compile(r"unknown anchor '(?P<name>[^']+)'")
_FIELD_OF = {
    "service": "depends_on",
    "network": "networks",
    "volume": "volumes",
    "config": "configs",
    "secret": "secrets",
}


class _Place(NamedTuple):
    path: str
    line: int
    column: int


def mistakes_in(messages: Sequence[str], files: Sequence[Path]) -> tuple[Mistake, ...]:
    """Return the mistake that ended Compose, located as precisely as possible. Never empty.

    Parses the files, which can take a second: do not call it in the event loop.
    """
    message = "\n".join(line for line in messages if not _LOG_LINE.match(line)).strip()
    message = message or "Docker Compose gave no reason"
    if _REMOTE_OFF.search(message):
        return (_remote_mistake(files),)
    place = _place(message, files)
    sentence = advised(_sentence(without_values(message)))
    if sentence.startswith("services must be a mapping") and _is_null(place):
        sentence = NO_SERVICES
    unset = unset_variables(messages)
    if unset:
        sentence = with_unset(sentence, unset, _source_at(place))
    return (Mistake(place.path, place.line, place.column, sentence),)


def at_keys(keys: tuple[str, ...], message: str, files: Sequence[Path]) -> Mistake:
    """Return a mistake at a path of keys, in the last file that contains the most of it."""
    place = _deepest(keys, list(reversed(files))) or _Place(_only(files), 0, 0)
    return Mistake(place.path, place.line, place.column, message)


def _remote_mistake(files: Sequence[Path]) -> Mistake:
    remedy = "files are not fetched; `remote_includes: true` in stack.yaml allows it"
    for path in files:
        for node in _scalars(_tree(path)):
            if _REMOTE.match(node.value):
                url = _USERINFO.sub("://", node.value)
                place = node.start_mark
                return Mistake(str(path), place.line + 1, place.column + 1, f"{url} is remote, and {remedy}")
    return Mistake(_only(files), 0, 0, f"it includes a remote file, and {remedy}")


def warnings_in(messages: Sequence[str]) -> tuple[str, ...]:
    """Return Compose's warnings, each once."""
    found = (match for line in messages if (match := _LOG_LINE.match(line)))
    texts = [match["text"].replace('\\"', '"') for match in found if match["level"] == "warning"]
    return tuple(dict.fromkeys(texts))


def _source_at(place: _Place) -> str:
    """Return the text of the key or value at a place; empty if the place is not known."""
    if not place.line:
        return ""
    found = _find_line(Path(place.path), place.line)
    return " ".join(node.value for node in _scalars(found)) if found is not None else ""


def _is_null(place: _Place) -> bool:
    root = _tree(Path(place.path))
    step = _step(root, "services")
    return step is not None and isinstance(step[1], ScalarNode) and step[1].value in {"", "~", "null"}


def _find_line(path: Path, line: int) -> Node | None:
    """Return the value of the key in a line, or the scalar of a list in that line."""
    ahead = [_tree(path)]
    seen: set[int] = set()
    here: list[Node]
    while ahead:
        node = ahead.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            here = [value for key, value in node.value if key.start_mark.line + 1 == line]
            ahead += [value for _, value in node.value]
        elif isinstance(node, SequenceNode):
            here = [item for item in node.value if item.start_mark.line + 1 == line]
            ahead += node.value
        else:
            continue
        if here:
            return here[0]
    return None


def _sentence(message: str) -> str:
    text = _PREFIX.sub("", message).removeprefix("yaml: ").strip()
    text = _LINE.sub("", text, count=1) if _LINE.match(text) else text
    text = text.removesuffix(": invalid compose project")
    return " ".join(text.replace("decoding failed due to the following error(s):", "").split())


def _place(message: str, files: Sequence[Path]) -> _Place:
    named_file = _named_file(message)
    line = _LINE.search(message)
    if line:
        return _Place(named_file or _only(files), int(line[1]), int(line[2] or 0))
    if named_file and Path(named_file) not in files:
        return _mention(Path(named_file), files) or _Place(named_file, 0, 0)
    keys = _keys(message)
    candidates = [Path(named_file)] if named_file else list(reversed(files))
    place = _deepest(keys, candidates)
    if place is not None:
        return _value_place(place, keys) if _TOP_LEVEL.match(message) else place
    anchor, last = _ANCHOR.search(message), _LAST_VALUE.search(message)
    if anchor:
        # The file has no nodes, since it is not YAML.
        return _line_with(f"*{anchor['name']}", candidates) or _Place(named_file or _only(files), 0, 0)
    mention = _mention_of(last["value"], candidates) if last else None
    return mention or _Place(named_file or _only(files), 0, 0)


def _deepest(keys: tuple[str, ...], files: Sequence[Path]) -> _Place | None:
    """Return the place in the file that contains the most of the path; ``files`` begins with the last one.

    As Compose merges, the last one of equals is chosen. None if no file contains the first key.
    """
    found = [place for path in files if (place := _find(path, keys))]
    best = max(found, key=lambda item: item[0], default=None)
    return best[1] if best is not None and best[0] else None


def _value_place(place: _Place, keys: tuple[str, ...]) -> _Place:
    """Return the place of the value instead of the key, if it is of the wrong type as a whole."""
    step = _step(_tree(Path(place.path)), keys[0])
    if step is None or isinstance(step[1], ScalarNode):
        return place
    return _Place(place.path, step[1].start_mark.line + 1, step[1].start_mark.column + 1)


def _mention_of(value: str, files: Sequence[Path]) -> _Place | None:
    """Return the first scalar that contains a value as a whole word, in the first file that has one."""
    word = re.compile(rf"(?<![\w.-]){re.escape(value)}(?![\w.-])")
    for path in files:
        for node in _scalars(_tree(path)):
            if word.search(node.value):
                return _Place(str(path), node.start_mark.line + 1, node.start_mark.column + 1)
    return None


def _line_with(text: str, files: Sequence[Path]) -> _Place | None:
    for path in files:
        try:
            lines = read_regular(path, MAX_BYTES).decode(errors="replace").split("\n")
        except OSError:
            continue
        for number, line in enumerate(lines, 1):
            if text in line:
                return _Place(str(path), number, line.index(text) + 1)
    return None


def _named_file(message: str) -> str:
    prefix = _PREFIX.match(message) or _NOT_FOUND.search(message) or _NAMED_FILE.search(message)
    return prefix["path"] if prefix else ""


def _only(files: Sequence[Path]) -> str:
    return str(files[0]) if files else ""


def _keys(message: str) -> tuple[str, ...]:
    """Return the path of keys in a message, such as ("services", "kafka", "image")."""
    keys = next((tuple(_split(match["keys"])) for form in _KEYS if (match := form.search(message))), ())
    extra = _EXTRA.search(message)
    if extra:
        head = keys or (("services",) if re.search(r"\bservices additional", message) else ())
        return (*head, extra["key"])
    if keys:
        return keys
    service = _SERVICE.search(message)
    if service:
        wrong = _UNDEFINED.search(message, service.end())
        return ("services", service["name"], *((_FIELD_OF[wrong["kind"]], wrong["name"]) if wrong else ()))
    top = _TOP_LEVEL.match(message)
    if top:
        return (top["key"],)
    cycle = _CYCLE.search(message)
    return ("services", cycle["name"], "depends_on") if cycle else ()


def _split(keys: str) -> Iterator[str]:
    for part in re.split(r"[.\[\]]+", keys):
        if part:
            yield part


def _mention(wanted: Path, files: Sequence[Path]) -> _Place | None:
    """Return where one of the files names the other one, which is where a person has to correct it."""
    for path in files:
        for node in _scalars(_tree(path)):
            if _leads_to(path.parent, node.value, wanted):
                return _Place(str(path), node.start_mark.line + 1, node.start_mark.column + 1)
    return None


def _leads_to(base: Path, name: str, wanted: Path) -> bool:
    try:
        return bool(name) and (base / name).resolve() == wanted
    except (OSError, ValueError, RuntimeError):
        # Not a path: it contains a NUL, is too long, or its links form a circle.
        return False


def _scalars(root: Node | None) -> Iterator[ScalarNode]:
    """Yield all scalars in order, each node once: aliases can make a small file a giant value."""
    seen: set[int] = set()
    ahead = [root]
    while ahead:
        node = ahead.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            yield node
        elif isinstance(node, MappingNode):
            ahead += [value for _, value in reversed(node.value)]
        elif isinstance(node, SequenceNode):
            ahead += reversed(node.value)


def _tree(path: Path) -> Node | None:
    try:
        return tree(str(path), read_regular(path, MAX_BYTES))
    except (OSError, InvalidDesiredState):
        return None


def _find(path: Path, keys: tuple[str, ...]) -> tuple[int, _Place] | None:
    """Return how many of the keys the file contains, and the position of the last of those."""
    node = _tree(path)
    if node is None:
        return None
    depth = 0
    place = _Place(str(path), 1, 1)
    for key in keys:
        step = _step(node, key)
        if step is None:
            break
        marked, node = step
        depth += 1
        place = _Place(str(path), marked.start_mark.line + 1, marked.start_mark.column + 1)
    return depth, place


def _step(node: Node | None, key: str) -> tuple[Node, Node] | None:
    if isinstance(node, MappingNode):
        return next(((name, value) for name, value in node.value if name.value == key), None)
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            if str(index) == key or (isinstance(item, ScalarNode) and item.value.split(":")[0] == key):
                return item, item
    return None
