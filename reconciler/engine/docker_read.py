"""The engine's JSON, read into our values. Pure: dictionaries in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from reconciler.observed import ALIVE, Container, Health, State

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CONFIG_HASH = "com.docker.compose.config-hash"
COMPOSE = "com.docker.compose.version"
ONE_OFF = "com.docker.compose.oneoff"

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_BRACKETS = re.compile(r"\(([^)]*)\)")
_MARKER = {"CMD": (), "CMD-SHELL": ("/bin/sh", "-c")}
_SHORTEST_ID = 12

Json = Mapping[str, Any]


def is_ours(entry: Json, project: str) -> bool:
    """Whether an entry of the list is a service's container of this project."""
    labels = entry.get("Labels") or {}
    return (
        labels.get(PROJECT) == project
        and bool(labels.get(SERVICE))
        and str(labels.get(ONE_OFF, "False")).lower() != "true"
    )


def name_of(entry: Json) -> str:
    """A listed container's own name; it also has one per link, as /other/alias. Empty when it has none."""
    names = (name.removeprefix("/") for name in entry.get("Names") or ())
    return next((name for name in names if "/" not in name), "")


def looks_of(entry: Json) -> tuple[object, ...]:
    """What the list tells of a container, without what ticks by itself: equal looks, nothing changed.

    An endpoint's id is a new one at each start, so that even a restart between two looks shows.
    """
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return (
        entry.get("State"),
        tuple(_BRACKETS.findall(entry.get("Status") or "")),
        tuple(entry.get("Names") or ()),
        entry.get("ImageID"),
        tuple(sorted((name, (end or {}).get("EndpointID")) for name, end in networks.items())),
    )


def container(seen: Json) -> Container:
    """A container from the engine's inspection of it."""
    config, state, host = seen["Config"], seen["State"], seen["HostConfig"]
    labels = config.get("Labels") or {}
    network = seen.get("NetworkSettings") or {}
    kind = State(state["Status"])
    started = moment(state.get("StartedAt"))
    return Container(
        id=seen["Id"],
        name=seen["Name"].removeprefix("/"),
        service=labels.get(SERVICE, ""),
        state=kind,
        health=_health(state, started) if kind in ALIVE else Health.NONE,
        image=seen.get("Image") or "",
        config_hash=labels.get(CONFIG_HASH, ""),
        exit_code=int(state.get("ExitCode") or 0),
        # Of one that runs it tells how the run before ended, for some engines (20.10).
        oom_killed=bool(state.get("OOMKilled")) and kind not in {State.RUNNING, State.PAUSED},
        created_at=moment(seen.get("Created")),
        started_at=started,
        finished_at=moment(state.get("FinishedAt")),
        restart=_policy(host.get("RestartPolicy") or {}),
        restart_count=int(seen.get("RestartCount") or 0),
        networks=tuple(sorted(network.get("Networks") or {})),
        ports=_ports(network.get("Ports") or {}) or _ports(host.get("PortBindings") or {}),
        check=check_of(config),
        error=state.get("Error") or "",
        pid=int(state.get("Pid") or 0),
        joins=_joins(host),
        grace=config.get("StopTimeout"),
        compose=str(labels.get(COMPOSE) or "").removeprefix("v"),
    )


def check_of(config: Json) -> tuple[str, ...]:
    """The health check as arguments for exec; () where there is none or it was switched off."""
    test = (config.get("Healthcheck") or {}).get("Test") or []
    if not test or test[0] == "NONE":
        return ()
    marker, *rest = test
    if marker == "CMD-SHELL":
        return (*(config.get("Shell") or _MARKER[marker]), *rest)
    return tuple(rest if marker == "CMD" else test)


def moment(stamp: object) -> float:
    """Seconds since the epoch of an RFC 3339 time with nanoseconds; 0 for the engine's "never"."""
    match = _STAMP.match(str(stamp or ""))
    if not match or match[1].startswith("0001-"):
        return 0.0
    whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    return whole.astimezone(UTC).timestamp() + float(match[2] or 0)


def tags_of(images: Iterable[Json]) -> dict[str, str]:
    """From every name that an image can be called by, in full, to its id; ids name themselves."""
    found: dict[str, str] = {}
    for image in images:
        found[image["Id"]] = image["Id"]
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
            if not name.startswith("<none>"):
                found[full_name(name)] = image["Id"]
    return found


def image_named(reference: str, tags: Mapping[str, str]) -> str:
    """The id that a reference names now; empty where no image has that name."""
    found = tags.get(full_name(reference)) or tags.get(reference, "")
    digits = reference.removeprefix("sha256:")
    if not found and len(digits) >= _SHORTEST_ID and re.fullmatch(r"[0-9a-f]+", digits):
        found = next((id for id in tags if id.startswith(f"sha256:{digits}")), "")
    return found


def full_name(reference: str) -> str:
    """A reference with everything that may be left out: registry, `library/` and `:latest`.

    A digest decides alone, so a tag beside it is dropped.
    """
    name, _, digest = reference.partition("@")
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = _full_repository(path + slash + last)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag or 'latest'}"


def repository_and_tag(reference: str) -> tuple[str, str]:
    """A reference as a pull asks for it: the repository, and the tag or, where there is one, the digest."""
    name, _, digest = reference.partition("@")
    tag = full_name(name).rpartition(":")[2]
    return name.removesuffix(f":{tag}"), digest or tag


def _full_repository(name: str) -> str:
    registry, slash, rest = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    if registry in {"docker.io", "index.docker.io"}:
        return f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    return name if "." in registry or ":" in registry or registry == "localhost" else f"docker.io/{name}"


def _health(state: Json, started: float) -> Health:
    told = state.get("Health") or {}
    verdict = told.get("Status") or "none"
    if verdict not in {health.value for health in Health}:
        return Health.NONE
    log = told.get("Log") or ()
    if verdict in {"healthy", "unhealthy"} and log and moment(log[-1].get("End")) < started:
        # Left over from before this start: the engine's monitor has not begun anew yet.
        return Health.STARTING
    return Health(verdict)


def _joins(host: Json) -> tuple[str, ...]:
    modes = (str(host.get(key) or "").partition(":") for key in ("NetworkMode", "IpcMode", "PidMode"))
    return tuple(dict.fromkeys(of for kind, _, of in modes if kind == "container"))


def _policy(policy: Json) -> str:
    name = policy.get("Name") or "no"
    most = policy.get("MaximumRetryCount") or 0
    return f"{name}:{most}" if name == "on-failure" and most else str(name)


def _ports(bindings: Json) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for inside, outside in bindings.items():
        port, _, protocol = inside.partition("/")
        suffix = "" if protocol in {"", "tcp"} else f"/{protocol}"
        for binding in outside or ():
            if binding.get("HostPort"):
                found[f"{binding['HostPort']}:{port}{suffix}"] = None
    return tuple(found)
