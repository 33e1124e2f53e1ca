"""Normalise the resolved model of any Compose version to the form of Compose 2.40. Pure.

Versions differ in the defaults that they omit and in the notation of other values. Definition digests must
not depend on that. Ledgers on disk hold digests of the 2.40 form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_BINDS_CREATE_BY_DEFAULT = 5
"""The first major version where a bind mount creates its missing source by default."""


def with_defaults(model: dict[str, Any], version: str) -> dict[str, Any]:
    """Convert a model of Compose ``version`` to the form of 2.40 in place, and return it.

    For ``create_host_path`` of a bind mount, 2.x writes true and omits false; 5.x writes false and omits
    true. Up to 2.30 the mode of a config or secret is a number (288 for ``"0440"``), up to 2.29 a device is
    a string.
    """
    for service in _services(model):
        for key in ("configs", "secrets"):
            for entry in service.get(key) or ():
                if isinstance(entry, dict) and isinstance(entry.get("mode"), int):
                    entry["mode"] = f"{entry['mode']:#o}".replace("0o", "0")
        if service.get("devices"):
            service["devices"] = [_device(device) for device in service["devices"]]
    if major(version) >= _BINDS_CREATE_BY_DEFAULT:
        for bind in _bind_options(model):
            if bind.get("create_host_path", True):
                bind["create_host_path"] = True
            else:
                del bind["create_host_path"]
    return model


def creates_source(volume: Mapping[str, Any]) -> bool:
    """Return whether a missing source of this bind mount is created, in a model from ``with_defaults``.

    Without bind options Compose uses the engine's older interface, which creates the source.
    """
    options = volume.get("bind")
    return options is None or bool(options.get("create_host_path"))


def major(version: str) -> int:
    """Return the first number of a version such as ``v5.0.0-rc.1``; 0 if it has no number."""
    match = re.match(r"v?(\d+)\.", version)
    return int(match[1]) if match else 0


def _device(device: Any) -> Any:
    if not isinstance(device, str):
        return device
    source, *rest = device.split(":")
    return {"source": source, "target": (rest or [source])[0], "permissions": rest[1] if rest[1:] else "rwm"}


def _services(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (service for service in (model.get("services") or {}).values() if service)


def _bind_options(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for service in _services(model):
        for volume in service.get("volumes") or ():
            if volume.get("type") == "bind" and isinstance(volume.get("bind"), dict):
                yield volume["bind"]
