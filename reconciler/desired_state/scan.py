"""One look at the directory: everything read once, and all that is wrong before Compose is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import Content, ParsedFiles, parse_files, source_name
from reconciler.desired_state.compose_inputs import compose_input_files
from reconciler.desired_state.schema import GROUPS, STACK, is_project_name
from reconciler.desired_state.stable_reader import StableReader
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.content_digest import digest


class Scan(NamedTuple):
    """What was read. ``key`` stands for everything that resolving depends on: equal keys, equal results.

    ``mistakes`` are those beyond ``parsed``. ``inputs`` are the files behind the Compose project, there or
    not; ``sources`` what was read, by name.
    """

    parsed: ParsedFiles
    mistakes: tuple[Mistake, ...]
    compose: tuple[Path, ...]
    inputs: tuple[Path, ...]
    project: str
    key: str
    sources: Mapping[str, bytes]


class Scanner:
    """Looks at one directory, again and again; what did not change is not read anew."""

    def __init__(
        self, directory: Path, extra_compose: Sequence[Path], environment: Mapping[str, str]
    ) -> None:
        self._directory = directory
        self._extra = tuple(path.absolute() for path in extra_compose)
        self._environment = environment
        self._reader = StableReader()
        self._last: Scan | None = None

    def scan(self) -> Scan:
        """Reads everything; where nothing moved since the last time, that costs a stat for each file.

        Raises:
            StillWritten: one of the files is open for writing.
        """
        if self._last is not None and not self._reader.has_changed():
            return self._last
        self._last = None
        survey = self._surveyed()
        if self._reader.complete and not survey.mistakes:
            # Mistakes may lie in what is no file: a folder that is not there, say.
            self._last = survey
        return survey

    def _surveyed(self) -> Scan:
        self._reader.open_scan()
        mistakes: list[Mistake] = []
        stack, groups = (self._own(self._directory / name) for name in (STACK, GROUPS))
        parsed = parse_files(stack, groups)
        compose = (*_named_compose(parsed, self._directory), *self._extra)
        read = partial(self._told, mistakes)
        inputs = compose_input_files(read, compose, self._environment)
        contents = {path: read(path) for path in inputs}
        mistakes += self._missing(parsed, compose, contents)
        project = _project(parsed)
        sources = {source_name(path, self._directory): held for path, held in self._reader.read_all().items()}
        key = _key(project, compose, contents)
        return Scan(parsed, tuple(mistakes), compose, inputs, project, key, sources)

    def has_changed(self) -> bool:
        """Whether anything that the last survey read is different by now."""
        return self._reader.has_changed()

    def relative_paths(self, mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
        """Mistakes with their files named from the directory on, where they lie in it."""
        return tuple(m._replace(path=source_name(Path(m.path), self._directory)) for m in mistakes)

    def invalid(self, path: Path, message: str) -> InvalidDesiredState:
        """One mistake about a whole file."""
        return InvalidDesiredState(self.relative_paths([Mistake(str(path), 0, 0, message)]))

    def _own(self, path: Path) -> Content:
        try:
            return self._reader.read(path)
        except InvalidDesiredState as error:
            return InvalidDesiredState(self.relative_paths(error.mistakes))

    def _told(self, mistakes: list[Mistake], path: Path) -> bytes | None:
        try:
            return self._reader.read(path)
        except InvalidDesiredState as error:
            mistakes += self.relative_paths(error.mistakes)
            return None

    def _missing(
        self, parsed: ParsedFiles, compose: Sequence[Path], contents: Mapping[Path, bytes | None]
    ) -> Iterator[Mistake]:
        if not self._directory.is_dir():
            yield Mistake(str(self._directory), 0, 0, "there is no such directory")
        for index, path in enumerate(compose):
            if contents.get(path) is None and not path.exists():
                told = f"there is no Compose file {source_name(path, self._directory)}"
                place = parsed.stack if index < len(compose) - len(self._extra) else None
                yield place.mistake(("compose", index), told) if place else Mistake(str(path), 0, 0, told)


def _named_compose(parsed: ParsedFiles, directory: Path) -> tuple[Path, ...]:
    plain = parsed.stack.plain if parsed.stack else None
    named = plain.get("compose") if isinstance(plain, dict) else None
    if not isinstance(named, list):
        return ()
    return tuple(directory / name for name in named if isinstance(name, str) and name)


def _project(parsed: ParsedFiles) -> str:
    plain = parsed.stack.plain if parsed.stack else None
    name = plain.get("name") if isinstance(plain, dict) else None
    return name if isinstance(name, str) and is_project_name(name) else ""


def _key(project: str, compose: Sequence[Path], contents: Mapping[Path, bytes | None]) -> str:
    parts = [project, *map(str, compose)]
    parts += [f"{path} {'-' if held is None else digest(held)}" for path, held in sorted(contents.items())]
    return digest("\n".join(parts).encode())
