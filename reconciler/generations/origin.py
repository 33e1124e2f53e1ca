"""Origins of changes, and the interface to a git work tree that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from reconciler.desired_state.assemble import LoadedState
from reconciler.errors import Mistake, WriteRefused
from reconciler.model.change_reason import EDITED, ChangeReason

BY_FILE = "file"
"""Author of an edit of the files, which names no author."""


class ChangeOrigin(NamedTuple):
    """Author and reason of a change; ``commit``: the git commit that contains all of it, if any.

    ``source``: address of the caller, empty for a change of the files.
    """

    author: str
    reason: ChangeReason
    commit: str = ""
    source: str = ""


class RestoreSet(NamedTuple):
    """Files of an earlier state: contents by name as in ``LoadedState``, and files to delete (``gone``).

    ``whole``: ``sources`` contains every file that was read then.
    """

    sources: Mapping[str, bytes]
    gone: tuple[str, ...] = ()
    whole: bool = True


class WorkTree(Protocol):
    """The directory as a git work tree; ``reconciler.git.work_tree.GitTree`` implements it."""

    async def look(self) -> str:
        """Wait for a running push, then return the commit that is checked out, '' for none."""

    async def origin(self, loaded: LoadedState) -> ChangeOrigin:
        """Return the origin of files that were read between two calls of ``look``."""

    def accepted(self) -> None:
        """A state was accepted: there may be changes to commit."""

    def refused(self) -> WriteRefused | None:
        """Return why the directory may not be written, None if it may."""

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about the work tree, for people."""

    def mistakes(self) -> tuple[Mistake, ...]:
        """Return mistakes in commits that are not accepted."""


class NullWorkTree:
    """A directory without git."""

    async def look(self) -> str:
        """See ``WorkTree``."""
        return ""

    async def origin(self, _loaded: LoadedState) -> ChangeOrigin:
        """See ``WorkTree``."""
        return ChangeOrigin(BY_FILE, EDITED)

    def accepted(self) -> None:
        """See ``WorkTree``."""

    def refused(self) -> WriteRefused | None:
        """See ``WorkTree``."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """See ``WorkTree``."""
        return ()

    def mistakes(self) -> tuple[Mistake, ...]:
        """See ``WorkTree``."""
        return ()
