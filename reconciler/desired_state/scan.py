"""Scan the directory: reads every file once and collects the mistakes found without Compose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import Content, ParsedFiles, parse_files, source_name
from reconciler.desired_state.compose_inputs import assignments, compose_input_files
from reconciler.desired_state.compose_selection import possible_overrides, selection_warnings
from reconciler.desired_state.schema import GROUPS, STACK, is_project_name
from reconciler.desired_state.stable_reader import FileBusy, StableReader
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.host.content_digest import digest


class Scan(NamedTuple):
    """The result of a scan. ``key`` is a digest of all inputs of the resolver: equal keys, equal results.

    ``mistakes`` are those beyond ``parsed``. ``inputs`` are the files of the Compose project, including
    missing ones and override files that are not in use; ``sources`` maps the name of each file read to its
    content. ``warnings`` name files that Compose would read and this stack does not.
    """

    parsed: ParsedFiles
    mistakes: tuple[Mistake, ...]
    compose: tuple[Path, ...]
    inputs: tuple[Path, ...]
    project: str
    key: str
    sources: Mapping[str, bytes]
    warnings: tuple[str, ...] = ()
    remote: bool = False


class Scanner:
    """Scan one directory repeatedly; reads only the files that changed."""

    def __init__(
        self, directory: Path, extra_compose: Sequence[Path], environment: Mapping[str, str]
    ) -> None:
        self._directory = directory
        self._extra = tuple(path.absolute() for path in extra_compose)
        self._environment = environment
        self._reader = StableReader()
        self._last: Scan | None = None

    def scan(self) -> Scan:
        """Read all files; costs one stat per file if nothing changed since the last scan.

        Raises:
            FileBusy: another program has one of the files open for writing.
            NotReadableNow: a file can't be read at the moment.
        """
        if self._last is not None and not self._reader.has_changed():
            return self._last
        self._last = None
        scan = self._scan()
        if self._reader.complete and not scan.mistakes:
            # Not cached with mistakes: they may concern a missing folder, which no file signature covers.
            self._last = scan
        return scan

    def _scan(self) -> Scan:
        self._reader.open_scan()
        mistakes: list[Mistake] = []
        stack, groups = (self._read_own(self._directory / name) for name in (STACK, GROUPS))
        parsed = parse_files(stack, groups)
        compose = (*_compose_paths(parsed, self._directory), *self._extra)
        read = partial(self._read_or_report, mistakes)
        inputs = compose_input_files(read, compose, self._environment)
        contents = {path: read(path) for path in inputs}
        mistakes += self._missing(parsed, compose, contents)
        project = _project(parsed)
        read_files = self._reader.read_all().items()
        sources = {source_name(path, self._directory): content for path, content in read_files}
        remote = parsed.stack_file is not None and parsed.stack_file.remote_includes
        key = _key(project, compose, contents) + ("+remote" if remote else "")
        # Read after the sources: a file that is not in use must not become one.
        overrides = possible_overrides(compose)
        warnings = self._selection_warnings(compose, contents, overrides)
        inputs = (*inputs, *overrides)
        return Scan(parsed, tuple(mistakes), compose, inputs, project, key, sources, warnings, remote)

    def _selection_warnings(
        self, compose: Sequence[Path], contents: Mapping[Path, bytes | None], overrides: Sequence[Path]
    ) -> tuple[str, ...]:
        if not compose:
            return ()
        for path in overrides:
            # Read so that `has_changed` notices when one comes or goes.
            with suppress(InvalidDesiredState, FileBusy):
                self._reader.read(path)
        variables = assignments(contents.get(compose[0].parent / ".env") or b"")
        return selection_warnings(compose, variables, Path.exists)

    def has_changed(self, but: Path | None = None) -> bool:
        """Return whether any file of the last scan has changed since, ``but`` aside."""
        return self._reader.has_changed(but)

    def relative_paths(self, mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
        """Return the mistakes with file names relative to the directory, for files inside it."""
        return tuple(m._replace(path=source_name(Path(m.path), self._directory)) for m in mistakes)

    def invalid(self, path: Path, message: str) -> InvalidDesiredState:
        """Return an error with one mistake about a whole file."""
        return InvalidDesiredState(self.relative_paths([Mistake(str(path), 0, 0, message)]))

    def _read_own(self, path: Path) -> Content:
        try:
            return self._reader.read(path)
        except InvalidDesiredState as error:
            return InvalidDesiredState(self.relative_paths(error.mistakes))

    def _read_or_report(self, mistakes: list[Mistake], path: Path) -> bytes | None:
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
                message = f"there is no Compose file {source_name(path, self._directory)}"
                place = parsed.stack if index < len(compose) - len(self._extra) else None
                yield (
                    place.mistake(("compose", index), message) if place else Mistake(str(path), 0, 0, message)
                )


def _compose_paths(parsed: ParsedFiles, directory: Path) -> tuple[Path, ...]:
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
    for path, content in sorted(contents.items()):
        parts.append(f"{path} {'-' if content is None else digest(content)}")
    return digest("\n".join(parts).encode())
