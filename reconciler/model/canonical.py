"""The canonical form of a stack: equal texts mean the same to the loop.

Compose version, file locations and comments are left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.model.stack import Service, Stack

_DERIVED_FIELDS = frozenset(
    {"config_hash", "fields", "named", "provider", "publishes", "replicas", "start", "volumes_from"}
)
"""Service fields that derive from the definition or from the Compose version."""


def stack_json(stack: Stack) -> str:
    """Return the canonical JSON of a stack, with sorted keys."""
    value = {
        "name": stack.name,
        "prune": stack.prune,
        "restart": stack.restart,
        "pilot": asdict(stack.pilot),
        "groups": [asdict(group) for group in stack.groups.values()],
        "services": {name: compared_fields(service) for name, service in stack.services.items()},
    }
    return json.dumps(value, sort_keys=True)


def compared_fields(service: Service) -> dict[str, object]:
    """Return the fields of a service whose change creates a new generation."""
    # Named tuples become lists in JSON, which does not matter to a digest.
    compared = {f.name: getattr(service, f.name) for f in fields(service) if f.name not in _DERIVED_FIELDS}
    # Omit fields with their default, so that digests equal those of versions without them.
    if not service.kind:
        del compared["kind"]
    return compared if service.replicas == 1 else {**compared, "replicas": service.replicas}
