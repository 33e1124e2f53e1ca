"""What a container was given of the host's files, and whether that is still what stands there. Pure.

Looking at the files is ``sources``' business; here is only compared what it saw with what is remembered.
"""

from __future__ import annotations

from reconciler.model.keyed_digest import comparable
from reconciler.model.ledger import BuiltFrom, Mounted
from reconciler.model.observed import ALIVE, Container, ObservedState
from reconciler.model.stack import Mount, Service

SOON = 60.0
"""Seconds after a start within which a changed file looks as if the container itself had written it."""

MOST_CHURN = 3
"""So often in a row may that be before the file's content is followed no more."""


def current_mounts(service: Service, observed: ObservedState) -> dict[str, Mounted]:
    """What a container made at this moment would be given, by ``stack.Mount.key``."""
    found = {}
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if mount.content:
            found[mount.key] = Mounted("content", mount.content)
        elif source is not None:
            found[mount.key] = Mounted(source.kind, source.digest, source.inode)
    return found


def changed_mounts(
    service: Service, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> tuple[str, ...]:
    """Targets whose content changed since the container was made, or whose file is not the one it holds.

    A content that changes again and again right after each start is written by the container itself, where
    it may: following it would remake the container for ever.
    """
    return tuple(mount.target for mount in service.mounts if _mount_changed(mount, container, observed, made))


def _mount_changed(
    mount: Mount, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> bool:
    before = made.mounts.get(mount.key) if made else None
    if mount.content:
        return before is not None and _content_changed(mount, before)
    source = observed.sources.get(mount.source)
    if source is None or source.kind != "file":
        return False
    if before is not None and before.kind == "file":
        known = bool(before.digest and source.digest)
        if known and before.digest != source.digest and not writes_own_mount(mount, made):
            return True
    if container.state not in ALIVE:
        # Whatever stands there when it is started is what it gets.
        return False
    held = observed.held.get((container.id, mount.target))
    was = before.inode if before is not None and before.kind == "file" else ""
    if held is not None:
        # Of a container that we made, only what it was made with counts as the old one, of any other only a
        # file changed since its start: one that shows another inode inside must not be remade for ever.
        known = made is not None and made.at > 0
        return held != source.inode and (held == was if known else container.started_at < source.changed_at)
    # Nobody can look into the container: it got the file of its start.
    return bool(was) and was != source.inode and container.started_at < source.changed_at


def _content_changed(mount: Mount, before: Mounted) -> bool:
    if comparable(before.digest, mount.content):
        return before.digest != mount.content
    # Digests of another key, because the key was lost, tell nothing; those without a key can be made again.
    return bool(mount.plain) and comparable(before.digest, mount.plain) and before.digest != mount.plain


def mounts_to_learn(service: Service, observed: ObservedState, made: BuiltFrom) -> dict[str, Mounted]:
    """What to record of the mounts of a container that is as defined: what its record lacks so far.

    Or has only as a digest that can't be compared with those of the present key.
    """
    found = {k: m for k, m in current_mounts(service, observed).items() if k not in made.mounts}
    for mount in service.mounts:
        before = made.mounts.get(mount.key)
        if not mount.content or before is None or comparable(before.digest, mount.content):
            continue
        if not _content_changed(mount, before):
            found[mount.key] = Mounted("content", mount.content)
    return found


def writes_own_mount(mount: Mount, made: BuiltFrom | None) -> bool:
    """Whether the container is taken to write the file itself, so that its content is not followed."""
    return mount.writable and made is not None and made.churn.get(mount.key, 0) >= MOST_CHURN


def self_write_counts(
    service: Service, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> dict[str, int]:
    """``BuiltFrom.churn`` of the container that takes this one's place because of its mounts."""
    changed = changed_mounts(service, container, observed, made)
    found = {}
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if mount.writable and mount.target in changed and source is not None and container.started_at:
            soon = 0 <= source.changed_at - container.started_at < SOON
            found[mount.key] = (made.churn.get(mount.key, 0) if made else 0) + 1 if soon else 0
    return found
