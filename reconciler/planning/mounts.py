"""Compare the host files that a container mounts with those it was created with. Pure.

``desired_state.mounted_files`` reads the files; this module compares its observation with the ledger.
"""

from __future__ import annotations

from collections.abc import Collection

from reconciler.model.keyed_digest import comparable
from reconciler.model.ledger import BuiltFrom, Mounted
from reconciler.model.observed import ALIVE, Container, ObservedState
from reconciler.model.stack import Mount, Service

SELF_WRITE_WINDOW = 60.0
"""Seconds after a start within which a file change is attributed to the container itself."""

MAX_SELF_WRITES = 3
"""Consecutive changes of this kind after which the file's content is no longer compared."""


def current_mounts(service: Service, observed: ObservedState) -> dict[str, Mounted]:
    """Return what a container created now would mount, by ``stack.Mount.key``."""
    mounts = {}
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if mount.content:
            mounts[mount.key] = Mounted("content", mount.content)
        elif source is not None:
            mounts[mount.key] = Mounted(source.kind, source.digest, source.inode)
    return mounts


def changed_mounts(
    service: Service, container: Container, observed: ObservedState, made: BuiltFrom | None
) -> tuple[str, ...]:
    """Return targets whose content changed since creation, or whose file is not the mounted one.

    Content that changes soon after every start is written by the container itself, where the mount is
    writable: comparing it would recreate the container endlessly.
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
        # The next start mounts the file that exists then.
        return False
    held = observed.held.get((container.id, mount.target))
    was = before.inode if before is not None and before.kind == "file" else ""
    if held is not None:
        # For a container that the daemon created, only the recorded inode counts as the old one; for others,
        # only a file changed since the start. Some file systems show another inode inside the container:
        # that must not cause endless recreation.
        known = made is not None and made.at > 0
        return held != source.inode and (held == was if known else container.started_at < source.changed_at)
    # The mounted inode can't be read: the container has the file that existed at its start.
    return bool(was) and was != source.inode and container.started_at < source.changed_at


def _content_changed(mount: Mount, before: Mounted) -> bool:
    if comparable(before.digest, mount.content):
        return before.digest != mount.content
    # Digests of a lost key can't be compared; those without a key can be computed again.
    return bool(mount.plain) and comparable(before.digest, mount.plain) and before.digest != mount.plain


def mounts_to_learn(service: Service, observed: ObservedState, made: BuiltFrom) -> dict[str, Mounted]:
    """Return the mounts that the record of an up-to-date container lacks.

    Includes mounts recorded with a digest that can't be compared with those of the current key.
    """
    mounts = {k: m for k, m in current_mounts(service, observed).items() if k not in made.mounts}
    for mount in service.mounts:
        before = made.mounts.get(mount.key)
        if not mount.content or before is None or comparable(before.digest, mount.content):
            continue
        if not _content_changed(mount, before):
            mounts[mount.key] = Mounted("content", mount.content)
    return mounts


def writes_own_mount(mount: Mount, made: BuiltFrom | None) -> bool:
    """Whether the container seems to write the file itself, so that its content is not compared."""
    return mount.writable and made is not None and made.churn.get(mount.key, 0) >= MAX_SELF_WRITES


def self_write_counts(
    service: Service,
    container: Container,
    observed: ObservedState,
    made: BuiltFrom | None,
    changed: Collection[str],
) -> dict[str, int]:
    """Return ``BuiltFrom.churn`` of the container that replaces this one; ``changed`` are mount targets."""
    counts = {}
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if mount.writable and mount.target in changed and source is not None and container.started_at:
            soon = 0 <= source.changed_at - container.started_at < SELF_WRITE_WINDOW
            counts[mount.key] = (made.churn.get(mount.key, 0) if made else 0) + 1 if soon else 0
    return counts


def missing_source(service: Service, observed: ObservedState, made: BuiltFrom | None) -> str:
    """Describe a mount source without which the container can't start; empty when all are present.

    A missing bind source is created as a folder, as Compose does, unless it was a file when the container of
    the record ``made`` was created: the container can't start with a folder in its place. An unreadable
    source counts as present.
    """
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if source is None:
            continue
        before = made.mounts.get(mount.key) if made else None
        was_file = before is not None and before.kind == "file"
        if source.kind == "missing" and (was_file or not mount.create):
            return f"needs {mount.source} (mounted at {mount.target}), which is gone"
        if source.kind == "folder" and was_file:
            return f"needs the file {mount.source} (mounted at {mount.target}), which is a folder now"
    return ""


def changing_source(service: Service, observed: ObservedState) -> str:
    """Return the path of a mounted file that is changing; empty if none is."""
    for mount in service.mounts:
        source = observed.sources.get(mount.source)
        if source is not None and source.moving:
            return mount.source
    return ""
