"""Parses the engine's JSON into values. Pure: dictionaries in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.model.observed import ALIVE, Container, Health, State

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CONFIG_HASH = "com.docker.compose.config-hash"
COMPOSE = "com.docker.compose.version"
ONE_OFF = "com.docker.compose.oneoff"
IMAGE = "com.docker.compose.image"
CONFIG_FILES = "com.docker.compose.project.config_files"
HOOK = "com.docker.compose.hook"
NUMBER = "com.docker.compose.container-number"

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_BRACKETS = re.compile(r"\(([^)]*)\)")
_MARKER = {"CMD": (), "CMD-SHELL": ("/bin/sh", "-c")}
_SHORTEST_ID = 12
_SYNONYMS = {
    # Podman's additional words (libpod's ContainerStatus): 5.4 lists a crash loop as "stopped".
    "stopped": State.EXITED,
    "stopping": State.RUNNING,
    "initialized": State.CREATED,
    "configured": State.CREATED,
}
_LONGEST_NUMBER = 10

Json = Mapping[str, Any]


class Unreadable(ValueError):
    """A field of a response is missing or has another type than in the engine's API; names the field."""


def claims(entry: Json, project: str) -> bool:
    """Whether the labels of a listed container name a service of this project.

    That alone does not make it a service's container: labels may come from its image (``identity``).
    """
    labels = labels_of(entry)
    return (
        labels.get(PROJECT) == project
        and bool(labels.get(SERVICE))
        and str(labels.get(ONE_OFF, "False")).lower() != "true"
        and not _runs_a_hook(labels)
    )


def labels_of(entry: Json) -> Mapping[str, str]:
    """Return the readable labels of a listed container or an image's configuration; may be empty."""
    labels = entry.get("Labels")
    if not isinstance(labels, Mapping):
        return {}
    return {key: value for key, value in labels.items() if isinstance(value, str)}


def id_of(entry: object) -> str:
    """Return the id of a listed container or image; empty if it has none."""
    id = entry.get("Id") if isinstance(entry, Mapping) else None
    return id if isinstance(id, str) else ""


def _runs_a_hook(labels: Json) -> bool:
    """Whether it is the container of a pre_start hook; Compose 5.3 to 5.5 sets no label for that."""
    return HOOK in labels or (COMPOSE in labels and not {CONFIG_HASH, NUMBER} & labels.keys())


def number_of(labels: Json) -> int:
    """Return the number of the replica from Compose's label; 0 if the label is missing or not a number."""
    text = str(labels.get(NUMBER) or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else 0


def name_of(entry: Json) -> str:
    """Return a listed container's own name (it has one more per link, as /other/alias); empty without one."""
    listed = entry.get("Names")
    texts = listed if isinstance(listed, list) else []
    names = (name.removeprefix("/") for name in texts if isinstance(name, str))
    return next((name for name in names if "/" not in name), "")


def summary_key(entry: Json) -> tuple[object, ...]:
    """Return the facts of a list entry that do not change by themselves: equal keys, nothing changed.

    An endpoint's id is new at each start, so a restart between two observations shows too.
    """
    settings = entry.get("NetworkSettings")
    networks = settings.get("Networks") if isinstance(settings, Mapping) else None
    ends = networks.items() if isinstance(networks, Mapping) else ()
    return (
        entry.get("State"),
        tuple(_BRACKETS.findall(str(entry.get("Status") or ""))),
        entry.get("Names"),
        entry.get("ImageID"),
        sorted((name, end.get("EndpointID") if isinstance(end, Mapping) else end) for name, end in ends),
    )


def state_from(word: object) -> State:
    """Return the state for the engine's word, or the nearest one; UNKNOWN if none matches."""
    text = word.strip().lower() if isinstance(word, str) else ""
    if text in _SYNONYMS:
        return _SYNONYMS[text]
    return State(text) if text in {state.value for state in State} else State.UNKNOWN


def container(seen: object) -> Container:
    """Return a container from the engine's inspection of it.

    Its state is UNKNOWN if the engine uses an unknown word.

    Raises:
        Unreadable: a field is missing or has another type than in the API.
    """
    if not isinstance(seen, Mapping):
        raise Unreadable("the answer is no object")
    config, state, host = (_mapping(seen, key, needed=True) for key in ("Config", "State", "HostConfig"))
    labels = _mapping(config, "Labels")
    network = _mapping(seen, "NetworkSettings")
    kind = state_from(_text(state, "Status", needed=True))
    started = _moment(state, "StartedAt")
    return Container(
        id=_text(seen, "Id", needed=True),
        name=_text(seen, "Name", needed=True).removeprefix("/"),
        service=_text(labels, SERVICE),
        state=kind,
        health=_health(state, started) if kind in ALIVE else Health.NONE,
        image=_text(seen, "Image"),
        config_hash=_text(labels, CONFIG_HASH),
        exit_code=_whole(state, "ExitCode"),
        # For some engines (20.10) the flag of a running container describes the previous run.
        oom_killed=bool(state.get("OOMKilled")) and kind not in {State.RUNNING, State.PAUSED},
        created_at=_moment(seen, "Created"),
        started_at=started,
        finished_at=_moment(state, "FinishedAt"),
        restart=_policy(_mapping(host, "RestartPolicy")),
        restart_count=_whole(seen, "RestartCount"),
        networks=tuple(sorted(_mapping(network, "Networks"))),
        ports=_ports(_mapping(network, "Ports")) or _ports(_mapping(host, "PortBindings")),
        check=health_check(config),
        # For Podman the text of a running container describes an earlier attempt.
        error=_no_state(state) if kind is State.UNKNOWN else "" if kind in ALIVE else _text(state, "Error"),
        pid=_whole(state, "Pid"),
        joins=_joins(host),
        borrowed=tuple(_borrowed(host)),
        grace=None if config.get("StopTimeout") is None else _whole(config, "StopTimeout"),
        compose=_text(labels, COMPOSE).removeprefix("v"),
        model=_text(labels, CONFIG_FILES),
        number=number_of(labels),
    )


def unreadable(entry: Json, why: str) -> Container:
    """Return a listed container of which only id, name and service are known; ``why`` is shown to users."""
    name = name_of(entry)
    return Container(
        id=id_of(entry) or f"?{name}",
        name=name or id_of(entry)[:12] or "a container without a name",
        service=labels_of(entry).get(SERVICE, ""),
        state=State.UNKNOWN,
        error=why,
        number=number_of(labels_of(entry)),
    )


def _no_state(state: Json) -> str:
    return f"the engine reports the state {state.get('Status')!r}, which has no meaning here"


def _mapping(of: Json, key: str, *, needed: bool = False) -> Json:
    value = of.get(key)
    if value is None and not needed:
        return {}
    if not isinstance(value, Mapping):
        raise Unreadable(f"{key} is no object")
    return value


def _sequence(of: Json, key: str) -> Sequence[Any]:
    value = of.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Unreadable(f"{key} is no list")
    return value


def _text(of: Json, key: str, *, needed: bool = False) -> str:
    value = of.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{key} is no text")
    return value


def _whole(of: Json, key: str) -> int:
    value = of.get(key)
    if value is None:
        return 0
    if not isinstance(value, int):
        raise Unreadable(f"{key} is no whole number")
    return int(value)


def _moment(of: Json, key: str) -> float:
    try:
        return parse_timestamp(of.get(key))
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"{key} is no time") from error


def health_check(config: Json) -> tuple[str, ...]:
    """Return the health check as arguments for exec; () if it is missing or disabled."""
    test = _texts(_mapping(config, "Healthcheck"), "Test")
    if not test or test[0] == "NONE":
        return ()
    marker, *rest = test
    if marker == "CMD-SHELL":
        return (*(_texts(config, "Shell") or _MARKER[marker]), *rest)
    return tuple(rest if marker == "CMD" else test)


def _texts(of: Json, key: str) -> tuple[str, ...]:
    texts = _sequence(of, key)
    if not all(isinstance(text, str) for text in texts):
        raise Unreadable(f"{key} holds what is no text")
    return tuple(texts)


def parse_timestamp(stamp: object) -> float:
    """Return the seconds since the epoch of an RFC 3339 time with nanoseconds; 0 for the engine's "never"."""
    match = _STAMP.match(str(stamp or ""))
    if not match or match[1].startswith("0001-"):
        return 0.0
    whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    return whole.astimezone(UTC).timestamp() + float(match[2] or 0)


def tags_of(images: Iterable[object]) -> dict[str, str]:
    """Map every full name of an image to its id; ids map to themselves.

    An unreadable image is left out.
    """
    found: dict[str, str] = {}
    for image in images:
        id = id_of(image)
        if not id or not isinstance(image, Mapping):
            continue
        found[id] = id
        for key in ("RepoTags", "RepoDigests"):
            names = image.get(key)
            for name in names if isinstance(names, list) else ():
                if isinstance(name, str) and not name.startswith("<none>"):
                    found[full_name(name)] = id
    return found


def image_named(reference: str, tags: Mapping[str, str]) -> str:
    """Return the id that a reference names now; empty if no image has that name."""
    found = tags.get(full_name(reference)) or tags.get(reference, "")
    digits = reference.removeprefix("sha256:")
    if not found and len(digits) >= _SHORTEST_ID and re.fullmatch(r"[0-9a-f]+", digits):
        found = next((id for id in tags if id.startswith(f"sha256:{digits}")), "")
    return found


def full_name(reference: str) -> str:
    """Return a reference with all optional parts: registry, `library/` and `:latest`.

    A digest decides alone, so a tag beside it is dropped.
    """
    name, _, digest = reference.partition("@")
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = _full_repository(path + slash + last)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag or 'latest'}"


def repository_and_tag(reference: str) -> tuple[str, str]:
    """Return the parameters of a pull: the repository, and the tag or, if there is one, the digest."""
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
    reported = _mapping(state, "Health")
    verdict = _text(reported, "Status") or "none"
    if verdict not in {health.value for health in Health}:
        return Health.NONE
    log = _sequence(reported, "Log")
    last = log[-1] if log and isinstance(log[-1], Mapping) else None
    if verdict in {"healthy", "unhealthy"} and last is not None and _moment(last, "End") < started:
        # From before this start: the engine's monitor has not begun again yet.
        return Health.STARTING
    return Health(verdict)


def _joins(host: Json) -> tuple[str, ...]:
    modes = (_text(host, key).partition(":") for key in ("NetworkMode", "IpcMode", "PidMode"))
    return tuple(dict.fromkeys(of for kind, _, of in modes if kind == "container"))


def _borrowed(host: Json) -> Iterator[tuple[str, str]]:
    for key, name in (("network_mode", "NetworkMode"), ("ipc", "IpcMode"), ("pid", "PidMode")):
        kind, _, of = _text(host, name).partition(":")
        if kind == "container":
            yield key, of
    for of in _texts(host, "VolumesFrom"):
        yield "volumes_from", of


def _policy(policy: Json) -> str:
    name = _text(policy, "Name") or "no"
    most = _whole(policy, "MaximumRetryCount")
    return f"{name}:{most}" if name == "on-failure" and most else name


def _ports(bindings: Json) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for inside in bindings:
        port, _, protocol = inside.partition("/")
        suffix = "" if protocol in {"", "tcp"} else f"/{protocol}"
        for binding in _sequence(bindings, inside):
            if not isinstance(binding, Mapping):
                raise Unreadable(f"a binding of {inside} is no object")
            if binding.get("HostPort"):
                found[f"{_text(binding, 'HostPort')}:{port}{suffix}"] = None
    return tuple(found)
