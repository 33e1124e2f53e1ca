"""Defaults that Compose leaves out of its resolved model, written out in one way for all versions. Pure.

Compose writes only what differs from a default, and defaults change between versions. Definition digests
compare what a container is made of, so they must not depend on which default a version leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_BINDS_CREATE_BY_DEFAULT = 5
"""The major version since which a bind mount creates its missing source unless the model says otherwise."""


def with_defaults(model: dict[str, Any], version: str) -> dict[str, Any]:
    """The model of Compose ``version`` in the form that 2.x writes; changes ``model`` itself.

    Of a bind mount's ``create_host_path`` 2.x writes out true and leaves out false, 5.x writes out false
    and leaves out true.
    """
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


def _bind_options(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for service in (model.get("services") or {}).values():
        for volume in (service or {}).get("volumes") or ():
            if volume.get("type") == "bind" and isinstance(volume.get("bind"), dict):
                yield volume["bind"]
