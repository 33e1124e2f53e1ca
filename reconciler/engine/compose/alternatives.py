"""Lets services of different profiles share a container name, as alternatives of one service. Pure.

Compose checks that container names are unique among the services of the profiles that are on. Here all
profiles are on, so it would refuse a file that works with one profile at a time (compose#11619). Where names
repeat, the model is read without Compose's check, and checked with all but one of the names left out; hashes
come from the model as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from reconciler.host.untrusted import MALFORMED
from reconciler.model.json_text import load_json

_TAKEN = re.compile(r'container name "(?P<name>[^"]*)" is already in use by service')

Model = Mapping[str, Any]


def name_is_shared(message: str) -> bool:
    """Return whether Compose's message says that two services have the same container name."""
    return _TAKEN.search(message) is not None


def shared_names(model: Model) -> dict[str, list[str]]:
    """Return the services of each container name that more than one service has."""
    users: dict[str, list[str]] = {}
    for service, entry in (model.get("services") or {}).items():
        name = (entry or {}).get("container_name")
        if name:
            users.setdefault(name, []).append(service)
    return {name: services for name, services in users.items() if len(services) > 1}


def always_clash(model: Model) -> str:
    """Return a sentence about services without profiles that share a name; empty if there are none."""
    services = model.get("services") or {}
    for name, users in shared_names(model).items():
        plain = [service for service in users if not (services[service] or {}).get("profiles")]
        if len(plain) > 1:
            return (
                f"the services {' and '.join(plain)} have the same container_name {name}; give each its own, "
                "or put them into different profiles"
            )
    return ""


def with_unique_names(text: bytes, keep: Collection[str] = ()) -> bytes:
    """Return the model in which each container name is used once: by a service of ``keep``, else the first.

    Returns ``text`` itself if no name is shared or it is not a model.
    """
    try:
        model = load_json(text)
        shared = shared_names(model)
        if not shared:
            return text
        for users in shared.values():
            user = next((service for service in users if service in keep), users[0])
            for service in users:
                if service != user:
                    del model["services"][service]["container_name"]
    except MALFORMED:
        return text
    return json.dumps(model, ensure_ascii=False).encode()
