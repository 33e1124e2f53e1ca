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
from reconciler.model.edit import REVISION_DIGITS

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
        return f'"{snapshot.revision[:REVISION_DIGITS]}.{self._run}-{snapshot.serial}"'

    def declared(self, snapshot: Snapshot) -> str:
        """Return the tag of a response that depends on the files alone."""
        return f'"{snapshot.revision[:REVISION_DIGITS]}"'


def not_modified(tag: str, if_none_match: str) -> Response | None:
    """Return a 304 response if ``if_none_match`` contains ``tag``, else None."""
    if not if_none_match:
        return None
    known = if_none_match.strip() == "*" or any(f'"{own}"' == tag for _, own in _TAG.findall(if_none_match))
    return Response(status_code=304, headers={"etag": tag}) if known else None


def revisions(if_match: str) -> tuple[str, ...] | None:
    """Return the abbreviated revisions in the header ``If-Match``; None: any revision matches."""
    if not if_match or if_match.strip() == "*":
        return None
    # A weak tag never matches: it does not guarantee an identical state.
    return tuple(tag.partition(".")[0] for weak, tag in _TAG.findall(if_match) if not weak)
