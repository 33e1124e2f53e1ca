"""Generations: accepted desired states, numbered, frozen and durable. The last valid one is never lost.

Each change of meaning is a new generation. Its sources are kept byte for byte for rollbacks. Its resolved
model is kept as a file that containers are created from, independent of the directory. All calls wait for
the disk: from a coroutine, call them in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reconciler.desired_state.assemble import LoadedState, assemble, inputs_digest, parse_files
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import InvalidDesiredState, WriteRefused
from reconciler.generations.record import Record
from reconciler.generations.records import CorruptRecord, Records
from reconciler.host.untrusted import MALFORMED
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.change_reason import ChangeReason
from reconciler.model.desired import Desired, GroupState
from reconciler.model.keyed_digest import DigestKey
from reconciler.model.resolved_compose import Resolved
from reconciler.model.secret_values import decode_values, encode_values, with_digests, with_values_file
from reconciler.model.stack import Stack
from reconciler.planning.diff import differences, meaning_digest

__all__ = ["Generations", "Record", "Recorded"]

KEPT = 200

_UNUSABLE = (CorruptRecord, InvalidDesiredState, *MALFORMED)
"""Errors of reading a frozen generation."""


class Recorded(NamedTuple):
    """Result of recording a state. ``fresh``: it became a new generation."""

    accepted: AcceptedState
    fresh: bool


class Generations:
    """All generations in a state directory; thread-safe. Numbers up to ``floor`` are already used.

    ``key`` digests values that are copied into containers; None: they have no digests.
    """

    def __init__(
        self, state_dir: Path, *, floor: int = 0, kept: int = KEPT, key: DigestKey | None = None
    ) -> None:
        self._key = key
        self._turn = threading.Lock()
        self._records = Records(state_dir)
        self._records.highest = max(self._records.highest, floor)
        self._kept = kept
        self._current: AcceptedState | None = None
        self._looked = False

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about damaged records."""
        return tuple(self._records.warnings)

    def record(
        self, loaded: LoadedState, *, author: str, reason: ChangeReason, at: float, commit: str = ""
    ) -> Recorded:
        """Number ``loaded``: the next generation if its meaning has changed, else the current one.

        Durable when this returns. ``at`` is wall time in seconds since the epoch, ``commit`` the git commit
        that contains all of it, if there is one.

        Raises:
            OSError: the state directory can't be written; nothing was accepted.
        """
        with self._turn:
            before = self._latest()
            meaning = meaning_digest(loaded.stack, loaded.desired.groups)
            record = self._records.all.get(before.desired.generation) if before else None
            fresh = record is None or record.meaning != meaning
            if fresh and record is not None and before is not None:
                # The recorded digest may have been made with another key, or by another version.
                fresh = meaning_digest(before.stack, before.desired.groups) != meaning
            if record is not None and not fresh and commit and record.commit != commit:
                record = replace(record, commit=commit)
            elif record is not None and not fresh and record.revision == loaded.revision and before:
                if before.stack.warnings != loaded.stack.warnings:
                    # Warnings may be about files that are no source, such as an override that is not used.
                    before = before._replace(stack=replace(before.stack, warnings=loaded.stack.warnings))
                    self._current = before
                return Recorded(before, fresh=False)
            if fresh or record is None:
                changes = _changes(before, loaded)
                number = self._records.highest + 1
                record = Record(
                    generation=number,
                    revision="",
                    meaning=meaning,
                    at=at,
                    author=author,
                    reason=str(reason),
                    changes=changes,
                    commit=commit,
                )
            self._current = self._freeze(record, loaded)
            self._records.retain(self._kept)
            return Recorded(self._current, fresh)

    def latest(self) -> AcceptedState | None:
        """Return the last valid state, None if there never was one."""
        with self._turn:
            return self._latest()

    def history(self) -> tuple[Record, ...]:
        """Return all kept generations, the newest last."""
        with self._turn:
            return tuple(self._records.all[number] for number in sorted(self._records.all))

    def sources(self, generation: int) -> Mapping[str, bytes]:
        """Return the exact bytes of all files of a generation, by name as in ``LoadedState.sources``.

        Raises:
            WriteRefused: ``unknown_generation``, or ``damaged_generation``.
        """
        with self._turn:
            record = self._record(generation)
            try:
                return {name: self._records.read_content(content) for name, content in record.sources.items()}
            except CorruptRecord as error:
                raise WriteRefused("damaged_generation", str(error), "choose another generation") from None

    def state(self, generation: int) -> AcceptedState:
        """Return an earlier desired state as a value, from its frozen contents.

        Raises:
            WriteRefused: as ``sources``; ``damaged_generation`` also if it is no longer valid.
        """
        with self._turn:
            try:
                return self._reassemble(self._record(generation))
            except _UNUSABLE as error:
                raise WriteRefused("damaged_generation", str(error), "choose another generation") from None

    def record_outcome(
        self,
        generation: int,
        outcome: str,
        reason: str,
        at: float,
        progress: str = "{}",
    ) -> None:
        """Record how a generation ended; ignored if it is no longer kept. ``progress`` is JSON."""
        with self._turn:
            record = self._records.all.get(generation)
            if record and (record.outcome, record.outcome_reason) != (outcome, reason):
                noted = replace(record, outcome=outcome, outcome_reason=reason, finished_at=at)
                self._records.save(replace(noted, progress=progress))

    def set_commit(self, generation: int, commit: str) -> None:
        """Record the git commit of a generation."""
        with self._turn:
            record = self._records.all.get(generation)
            if record and record.commit != commit:
                self._records.save(replace(record, commit=commit))
            current = self._current
            if current and current.desired.generation == generation:
                self._current = current._replace(desired=replace(current.desired, commit=commit))

    def _record(self, generation: int) -> Record:
        record = self._records.all.get(generation)
        if record is None:
            known = sorted(self._records.all)
            remedy = (
                f"generations {known[0]} to {known[-1]} are kept" if known else "no generation is kept yet"
            )
            raise WriteRefused("unknown_generation", f"there is no generation {generation}", remedy)
        return record

    def _freeze(self, record: Record, loaded: LoadedState) -> AcceptedState:
        resolved = loaded.resolved
        # Contents first: a record must only refer to contents that exist.
        sources = {name: self._records.save_content(content) for name, content in loaded.sources.items()}
        text, values = resolved.text, ""
        if resolved.values:
            values = self._records.save_content(encode_values(resolved.values, self._key))
            text = with_values_file(text, self._records.relative_content_path(values))
        name, model = self._records.save_model(text)
        record = replace(
            record,
            revision=loaded.revision,
            directory=loaded.stack.directory,
            files=loaded.stack.files,
            sources=sources,
            resolved=name,
            values=values,
            hashes=dict(resolved.hashes),
            compose_version=resolved.version,
            compose_warnings=resolved.warnings,
        )
        self._records.save(record)
        accepted = _accepted(record, loaded.stack, loaded.desired.groups, model)
        if self._current is not None and self._current.stack == accepted.stack:
            # The known object carries cached results.
            return accepted._replace(stack=self._current.stack)
        return accepted

    def _latest(self) -> AcceptedState | None:
        if not self._looked:
            self._looked = True
            for number in sorted(self._records.all, reverse=True):
                self._current = self._load_or_warn(self._records.all[number])
                if self._current:
                    break
        return self._current

    def _load_or_warn(self, record: Record) -> AcceptedState | None:
        try:
            return self._reassemble(record)
        except _UNUSABLE as error:
            self._records.warnings.append(f"generation {record.generation} can't be read: {error}")
            return None

    def _reassemble(self, record: Record) -> AcceptedState:
        contents = {name: self._records.read_content(record.sources[name]) for name in (STACK, GROUPS)}
        text = self._records.read_model(record.resolved)
        values = decode_values(self._records.read_content(record.values)) if record.values else {}
        resolved = Resolved(text, record.hashes, record.compose_version, record.compose_warnings, values)
        resolved = with_digests(resolved, self._key)
        parsed = parse_files(contents[STACK], contents[GROUPS])
        stack, groups = assemble(parsed, resolved, record.directory)
        return _accepted(record, stack, groups, self._records.model_path(record.resolved))


def _accepted(record: Record, stack: Stack, groups: Mapping[str, GroupState], model: Path) -> AcceptedState:
    desired = Desired(
        groups=groups,
        generation=record.generation,
        revision=record.revision,
        commit=record.commit,
    )
    stack = replace(
        stack,
        model=str(model),
        inputs=inputs_digest(stack.name, record.sources),
        compose=record.compose_version,
        files=record.files,
    )
    return AcceptedState(stack, desired, record.at, record.changes)


def _changes(before: AcceptedState | None, loaded: LoadedState) -> tuple[str, ...]:
    if before is None:
        return ("first desired state",)
    old = (before.stack, before.desired.groups)
    return tuple(differences(old, (loaded.stack, loaded.desired.groups)))
