"""The resolved model as Compose 2.40 writes it, whichever version wrote it. Pure.

Compose leaves defaults out, and which ones it leaves out and how it writes the rest differs between versions.
Definition digests compare what a container is made of, so they must not depend on that. The form of 2.40 is
the one that ledgers on disk hold digests of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_BINDS_CREATE_BY_DEFAULT = 5
"""The major version since which a bind mount creates its missing source unless the model says otherwise."""


def with_defaults(model: dict[str, Any], version: str) -> dict[str, Any]:
    """The model of Compose ``version`` in the form that 2.40 writes; changes ``model`` itself.

    Of a bind mount's ``create_host_path`` 2.x writes out true and leaves out false, 5.x writes out false
    and leaves out true. Up to 2.30 the mode of a config or secret is a number (288 for ``"0440"``), up to
    2.29 a device is one text.
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
    """Whether a missing source of this bind mount is created, in a model as ``with_defaults`` returns it.

    Without any bind options Compose mounts by the engine's older interface, which creates the source.
    """
    options = volume.get("bind")
    return options is None or bool(options.get("create_host_path"))


def major(version: str) -> int:
    """The first number of a version such as ``v5.0.0-rc.1``; 0 where there is none."""
    found = re.match(r"v?(\d+)\.", version)
    return int(found[1]) if found else 0


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
