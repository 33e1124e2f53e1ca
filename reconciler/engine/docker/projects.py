"""Finds other Compose projects created from the files of a stack, which a changed name leaves behind.

Compose labels each container with the files and the folder that it was created from. Volumes have only the
name of their project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.engine.docker.http import DockerHttp, Refused
from reconciler.engine.docker.identity import Identity
from reconciler.engine.docker.parse import CONFIG_HASH, ONE_OFF, PROJECT, SERVICE, Json, labels_of, name_of
from reconciler.errors import EngineUnavailable
from reconciler.model.observed import LeftBehind
from reconciler.model.stack import Stack

CONFIG_FILES = "com.docker.compose.project.config_files"
WORKING_DIR = "com.docker.compose.project.working_dir"

_FROZEN = re.compile(r"[0-9a-f]{32,}\.json")
"""The file name of a stored model in the state directory of a daemon, which creates containers from it."""


async def left_behind(
    http: DockerHttp, identity: Identity, entries: Iterable[Json], stack: Stack, former: str, *, local: bool
) -> tuple[LeftBehind, ...]:
    """Return the other projects created from the files of this stack, sorted by name.

    ``former`` is an earlier name of the stack, whose volumes count even without a container. ``local``: the
    paths in labels are those of this host.

    Raises:
        EngineUnavailable: the engine does not answer, or can't list volumes.
    """
    entries = list(entries)
    projects: dict[str, list[Json]] = {}
    for entry in entries:
        labels = labels_of(entry)
        name = labels.get(PROJECT, "")
        if name and name != stack.name and SERVICE in labels and labels.get(ONE_OFF, "False") != "True":
            projects.setdefault(name, []).append(entry)
    names = {name for name, made in projects.items() if is_of(stack, made, local=local)}
    names |= {former} - {"", stack.name}
    found = []
    for name in sorted(names):
        # Without containers that inherited the labels of that project from their image.
        known = await identity.sort(projects.get(name, ()), name)
        containers = tuple(sorted(name_of(entry) or id[:12] for id, entry in known.ours.items()))
        volumes = await _volumes(http, name)
        if containers or volumes:
            found.append(LeftBehind(name, containers, volumes))
    return tuple(found)


def is_of(stack: Stack, made: Iterable[Json], *, local: bool) -> bool:
    """Whether the containers of another project were created from the Compose files of this stack."""
    labels = [labels_of(entry) for entry in made]
    return any(_same_files(stack, one) for one in labels) or _same_content(stack, labels, local=local)


def _same_files(stack: Stack, labels: Mapping[str, str]) -> bool:
    return bool(_places(_files(labels)) & _places(stack.files))


def _same_content(stack: Stack, labels: list[Mapping[str, str]], *, local: bool) -> bool:
    """Whether a daemon created them, whose files are stored elsewhere, or files that have moved since."""
    services = {one[SERVICE] for one in labels}
    if not services or not services <= stack.services.keys():
        return False
    if all(_by_daemon(one) for one in labels):
        return any(_places([one.get(WORKING_DIR, "")]) & _places([stack.directory]) for one in labels)
    if not local or any(_there(path) for one in labels for path in (*_files(one), one.get(WORKING_DIR, ""))):
        return False
    same = any(one.get(CONFIG_HASH) == stack.services[one[SERVICE]].config_hash for one in labels)
    return same or (len(services) > 1 and services == stack.services.keys())


def _files(labels: Mapping[str, str]) -> list[str]:
    return [path for path in labels.get(CONFIG_FILES, "").split(",") if path]


def _by_daemon(labels: Mapping[str, str]) -> bool:
    files = [PurePosixPath(path) for path in _files(labels)]
    return bool(files) and all(_FROZEN.fullmatch(file.name) for file in files)


def _places(paths: Iterable[str]) -> set[str]:
    """Return the paths as written and with links resolved."""
    return {place for path in paths if path for place in (os.path.normpath(path), str(Path(path).resolve()))}


def _there(path: str) -> bool:
    return bool(path) and Path(path).exists()


async def _volumes(http: DockerHttp, project: str) -> tuple[str, ...]:
    try:
        answer: Any = await http.get("/volumes", filters={"label": [f"{PROJECT}={project}"]})
    except Refused as error:
        raise EngineUnavailable(f"the engine can't list volumes: {error}", "list_failed") from error
    except (ValueError, RecursionError) as error:
        raise EngineUnavailable("the engine's list of volumes can't be read", "list_failed") from error
    listed = answer.get("Volumes") if isinstance(answer, Mapping) else None
    names = [one.get("Name") for one in listed or () if isinstance(one, Mapping)] if listed else []
    return tuple(sorted(name for name in names if isinstance(name, str)))
