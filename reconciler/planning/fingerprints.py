"""Fingerprints of desired state and of attempts. Pure.

While the fingerprint of desired state is unchanged, a difference is drift; afterwards it is a pending change.
A change of an attempt's fingerprint ends its back-off.
"""

from __future__ import annotations

from reconciler.model.desired import GroupState
from reconciler.model.fingerprint import OFF, DesiredFingerprint
from reconciler.model.observed import ObservedState
from reconciler.model.stack import Service


def desired_fingerprint(service: Service, state: GroupState) -> DesiredFingerprint:
    """Return the fingerprint of a service's desired state. While it is unchanged, a difference is drift."""
    if not state.on:
        return OFF
    definition = service.definition + service.contents
    return DesiredFingerprint(True, definition, service.replicas, state.restarted_at)


def attempt_fingerprint(
    service: Service, state: GroupState, observed: ObservedState, wants: DesiredFingerprint | None = None
) -> str:
    """Return the fingerprint of an attempt's inputs: a change ends the back-off (CONTRACT section 3).

    ``wants``: the ``desired_fingerprint``, if the caller has it.
    """
    if not state.on:
        return "off"
    text = (wants or desired_fingerprint(service, state)).text()
    inputs = f"{text} {observed.images.get(service.image, '')}"
    if not service.mounts:
        return inputs
    # A file that the container may write itself does not express desired state.
    files = (observed.sources.get(mount.source) for mount in service.mounts if not mount.writable)
    return inputs + "".join(f" {file.kind} {file.digest}" for file in files if file is not None)
