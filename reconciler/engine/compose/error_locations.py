"""Locates Compose's error messages in the files: adds file and line.

Compose names a line only if a file is not YAML; otherwise it names a key, which is looked up in the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.engine.compose.redact import without_values
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.untrusted import read_regular
from reconciler.host.yaml_positions import MAX_BYTES, tree

_LOG_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>.*)"$')
_LINE = re.compile(r"\bline (\d+)(?:, column (\d+))?: ")
_PREFIX = re.compile(r"^(?:validating|failed to parse|parsing) (?P<path>/.*?\.\w+): +")
_NAMED_FILE = re.compile(r"(?P<path>/[^\s:]+\.(?:ya?ml|json|env)|/[^\s:]*\.env)\b")
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
    return (Mistake(place.path, place.line, place.column, _sentence(without_values(message))),)


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
    found = [place for path in candidates if (place := _find(path, keys))]
    # Choose the file that contains the most of the path, and the last one of equals, as Compose merges.
    best = max(found, key=lambda item: item[0], default=None)
    if best and best[0]:
        return best[1]
    return _Place(named_file or _only(files), 0, 0)


def _named_file(message: str) -> str:
    prefix = _PREFIX.match(message) or _NAMED_FILE.search(message)
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
