"""Lists earlier generations, previews a rollback to one, and rolls back.

Uses the contents frozen with each generation, so it needs no git. If the directory is a git work tree,
``tree`` adds states that were never a generation, and files that Compose mounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from reconciler.controller.loop import Loop
from reconciler.desired_state.assemble import LoadedState
from reconciler.desired_state.schema import GROUPS, STACK
from reconciler.errors import WriteRefused
from reconciler.generations.desired_state_files import DesiredStateFiles
from reconciler.generations.origin import RestoreSet
from reconciler.generations.preview_results import RollbackPreview
from reconciler.generations.store import Generations, Record
from reconciler.generations.writes import WriteResult
from reconciler.model.accepted_state import AcceptedState
from reconciler.model.change_reason import ROLLBACK, ChangeReason
from reconciler.model.ledger import Clock
from reconciler.planning.diff import differences
from reconciler.planning.dry_run import dry_run

_LONGEST_NUMBER = 9
"""Maximum digits of a generation; a longer target can only be a commit."""


class WorkTreeHistory(Protocol):
    """Commits of a git work tree; ``reconciler.git.work_tree.GitTree`` implements it."""

    async def find(self, word: str) -> str | None:
        """Return the full hash of the commit that ``word`` (a full or abbreviated hash) names, if any."""

    async def files(self, commit: str) -> RestoreSet:
        """Return the files of the directory in a commit."""

    async def state(self, commit: str) -> LoadedState:
        """Return the desired state of a commit, together with the directory's untracked files."""


class _RollbackTarget(NamedTuple):
    name: str
    record: Record | None
    commit: str
    files: RestoreSet


class History:
    """Implements ``api.endpoints.history.GenerationHistory``.

    ``now`` returns both clocks; ``tree`` None: no git.
    """

    def __init__(
        self,
        generations: Generations,
        files: DesiredStateFiles,
        loop: Loop,
        *,
        now: Callable[[], Clock],
        tree: WorkTreeHistory | None = None,
    ) -> None:
        self._generations = generations
        self._files = files
        self._loop = loop
        self._now = now
        self._tree = tree

    def records(self) -> tuple[Record, ...]:
        """Return all kept generations, the newest last."""
        return self._generations.history()

    async def preview_rollback(self, name: str) -> RollbackPreview:
        """Return what a rollback to the generation or commit ``name`` would do now; changes nothing.

        Raises:
            WriteRefused: ``unknown_generation``, ``unknown_commit``, ``damaged_generation``, or
                ``not_restorable`` if those files are no longer valid.
        """
        target = await self._find_target(name)
        stack, desired = (await self._state(target))[:2]
        current = self._loop.target
        observed, now = self._loop.observed, self._now()
        outlook = dry_run(stack, desired, observed, self._loop.ledger, now)
        before = (current.stack, current.desired.groups) if current else None
        changes = tuple(differences(before, (stack, desired.groups))) if before else ()
        files = await asyncio.to_thread(self._differing, target.files)
        return RollbackPreview(
            target.record,
            target.commit,
            changes,
            files,
            outlook.steps if observed.complete else (),
            outlook.rest,
            observed.complete,
            stack.group_of,
        )

    async def rollback(self, name: str, *, author: str, source: str = "") -> WriteResult:
        """Restore the files of the generation or commit ``name``, as a new generation.

        Raises:
            WriteRefused: as ``preview_rollback``, or as any write.
        """
        target = await self._find_target(name)
        return await self._files.restore(
            target.files, author=author, reason=ChangeReason(ROLLBACK, target.name), source=source
        )

    async def _find_target(self, name: str) -> _RollbackTarget:
        known = {record.generation: record for record in self.records()}
        number = int(name) if name.isdecimal() and len(name) <= _LONGEST_NUMBER else -1
        if number in known:
            return await self._of_generation(known[number])
        commit = await self._tree.find(name) if self._tree is not None else None
        if commit is None:
            raise self._unknown(name, number, sorted(known))
        record = next((r for r in reversed(self.records()) if r.commit == commit), None)
        if record is not None:
            return await self._of_generation(record)
        assert self._tree is not None
        return _RollbackTarget(_abbreviated(commit), None, commit, await self._tree.files(commit))

    async def _of_generation(self, record: Record) -> _RollbackTarget:
        sources = await asyncio.to_thread(self._generations.sources, record.generation)
        files = RestoreSet(sources)
        if self._tree is not None and record.commit and await self._tree.find(record.commit):
            # Mounted files are not among the generation's sources, but the commit contains them.
            tracked = await self._tree.files(record.commit)
            gone = tuple(name for name in tracked.gone if name not in sources)
            files = RestoreSet({**tracked.sources, **sources}, gone)
        return _RollbackTarget(str(record.generation), record, record.commit, files)

    async def _state(self, target: _RollbackTarget) -> LoadedState | AcceptedState:
        if target.record is not None:
            return await asyncio.to_thread(self._generations.state, target.record.generation)
        assert self._tree is not None
        return await self._tree.state(target.commit)

    def _differing(self, files: RestoreSet) -> tuple[str, ...]:
        current = self._files.on_disk(files)
        differing = [name for name, content in files.sources.items() if current.get(name) != content]
        # Files outside the directory are not restored.
        changed = [name for name in differing if self._files.is_below(name)]
        return tuple(sorted([*changed, *(name for name in files.gone if name in current)], key=_rank))

    def _unknown(self, name: str, number: int, known: list[int]) -> WriteRefused:
        remedy = f"generations {known[0]} to {known[-1]} are kept" if known else "no generation is kept yet"
        if number >= 0:
            return WriteRefused("unknown_generation", f"there is no generation {number}", remedy)
        if self._tree is None:
            detail = f"{name!r} is not a generation, and the directory is not a git work tree"
            return WriteRefused("unknown_commit", detail, remedy)
        detail = f"there is no commit {name!r}"
        return WriteRefused(
            "unknown_commit", detail, "`service-manager history` lists generations and commits"
        )


def _abbreviated(commit: str) -> str:
    """Abbreviate a commit to ten digits, or more until one is a letter: decimals alone name a generation."""
    return next((commit[:n] for n in range(10, len(commit)) if not commit[:n].isdecimal()), commit)


def _rank(name: str) -> tuple[bool, bool, str]:
    return name != STACK, name != GROUPS, name
