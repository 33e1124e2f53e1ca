"""ETags identify the state that a response shows: for cached reads, and for writes without lost updates.

``"REVISION.RUN-SERIAL"`` for observed state: revision of desired state, run of the daemon, number of the
snapshot. A conditional write compares only the revision, since a container that changed is not an edit.
``"REVISION"`` for responses that depend on the files alone. Fields that always change (``timestamp``,
``uptime``) are in no tag, or no response would ever match.
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
"""Digits of a revision that are shown: enough to be unique, short enough for a shell."""

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

IfNoneMatch = Annotated[
    str, Header(description="ETag of an earlier response: 304 without a body if nothing has changed since")
]
IfMatch = Annotated[
    str,
    Header(
        description="ETag of the status or groups response that this change is based on: 412 and no change "
        "if desired state has another revision now. Changes of containers do not count"
    ),
]


class EntityTags:
    """Creates the tags of one run of the daemon."""

    def __init__(self) -> None:
        # Snapshot numbers restart with each run: a tag of an earlier run must not match by chance.
        self._run = token_hex(3)

    def observed(self, snapshot: Snapshot) -> str:
        """Return the tag of a response that shows observed state."""
        return f'"{snapshot.revision[:_LENGTH]}.{self._run}-{snapshot.serial}"'

    def declared(self, snapshot: Snapshot) -> str:
        """Return the tag of a response that depends on the files alone."""
        return f'"{snapshot.revision[:_LENGTH]}"'


def not_modified(tag: str, if_none_match: str) -> Response | None:
    """Return a 304 response if ``if_none_match`` contains ``tag``, else None."""
    if not if_none_match:
        return None
    known = if_none_match.strip() == "*" or any(f'"{own}"' == tag for _, own in _TAG.findall(if_none_match))
    return Response(status_code=304, headers={"etag": tag}) if known else None


def require_match(decide: EditFunction, if_match: str) -> EditFunction:
    """Wrap ``decide`` so that it refuses if desired state has another revision than ``if_match``.

    The check is part of the edit function because that runs under the write lock: no other write can come
    between. The returned function raises ``WriteRefused`` with the reason ``revision_changed``.
    """
    if not if_match or if_match.strip() == "*":
        return decide
    # A weak tag never matches: it does not guarantee an identical state.
    revisions = {tag.partition(".")[0] for weak, tag in _TAG.findall(if_match) if not weak}

    def decided(stack: Stack, desired: Desired) -> Changes:
        if desired.revision[:_LENGTH] not in revisions:
            raise WriteRefused(
                "revision_changed",
                f"desired state has changed since: its revision is now {desired.revision[:_LENGTH]}",
                "read it again, check that the change still applies, and send it with the new ETag",
            )
        return decide(stack, desired)

    return decided
