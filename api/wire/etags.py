"""ETags: which state an answer shows, so that nobody reads it twice and no writer writes over another.

``"REVISION.RUN-SERIAL"`` for what is observed: desired state, run of the daemon, number of the snapshot. Of
such a tag a write looks at the revision alone, since a container that moved is nobody's edit.
``"REVISION"`` for what only the files say. The moments that tick by themselves (``timestamp``, ``uptime``)
are in no tag, or no answer would ever be the same.
"""

from __future__ import annotations

import re
from secrets import token_hex
from typing import Annotated

from fastapi import Header
from starlette.responses import Response

from reconciler.controller.snapshot import Snapshot
from reconciler.errors import WriteRefused
from reconciler.generations.edits import Changes, EditFunction
from reconciler.model.desired import Desired
from reconciler.model.stack import Stack

_LENGTH = 16
"""Digits of a revision that are shown: enough to tell any two apart, short enough for a shell."""

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

IfNoneMatch = Annotated[
    str, Header(description="ETag of an answer held already: 304 without a body where nothing is new")
]
IfMatch = Annotated[
    str,
    Header(
        description="ETag of the answer that this change rests on (of a status or of the groups): 412 and "
        "no change where desired state has another revision by now. What containers did does not count"
    ),
]


class EntityTags:
    """Makes the tags of one run of the daemon."""

    def __init__(self) -> None:
        # Numbers of snapshots begin anew with each run: a tag of the last one must not fit by chance.
        self._run = token_hex(3)

    def observed(self, snapshot: Snapshot) -> str:
        """The tag of an answer that shows what runs."""
        return f'"{snapshot.revision[:_LENGTH]}.{self._run}-{snapshot.serial}"'

    def declared(self, snapshot: Snapshot) -> str:
        """The tag of an answer that shows only what the files say."""
        return f'"{snapshot.revision[:_LENGTH]}"'


def not_modified(tag: str, if_none_match: str) -> Response | None:
    """304 where one of the tags given is this one; else None."""
    if not if_none_match:
        return None
    known = if_none_match.strip() == "*" or any(f'"{own}"' == tag for _, own in _TAG.findall(if_none_match))
    return Response(status_code=304, headers={"etag": tag}) if known else None


def require_match(decide: EditFunction, if_match: str) -> EditFunction:
    """The decision, refused where desired state is not of the revision that ``if_match`` names.

    Made part of the decision because that is asked at the moment of writing: nothing comes between.
    Raises ``WriteRefused`` with the reason ``revision_changed``.
    """
    if not if_match or if_match.strip() == "*":
        return decide
    # A weak tag never fits: it does not say that nothing changed.
    revisions = {tag.partition(".")[0] for weak, tag in _TAG.findall(if_match) if not weak}

    def decided(stack: Stack, desired: Desired) -> Changes:
        if desired.revision[:_LENGTH] not in revisions:
            raise WriteRefused(
                "revision_changed",
                f"desired state has changed meanwhile: its revision is {desired.revision[:_LENGTH]} now",
                "read again, see whether the change is still meant, and send it with the new ETag",
            )
        return decide(stack, desired)

    return decided
