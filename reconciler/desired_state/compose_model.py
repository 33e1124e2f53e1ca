"""Convert the resolved Compose model (JSON) to ``Service`` values. Pure.

``fields`` omits what Compose omits from its own hash (checked with 2.40.3), so that both agree on whether a
definition changed: ``build``, ``pull_policy``, ``depends_on``, ``profiles``, ``scale``, ``deploy.replicas``
and extensions (``x-…``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from reconciler.desired_state.compose_defaults import creates_source, with_defaults
from reconciler.errors import InvalidDesiredState, Mistake
from reconciler.model.json_text import load_json
from reconciler.model.resolved_compose import Resolved
from reconciler.model.stack import Condition, Dependency, HealthCheck, Mount, Service
from reconciler.model.start_work import CONFIG, SECRET, start_warnings, start_work, target_of, value_key
from reconciler.model.units import parse_duration

_NOT_HASHED = frozenset({"build", "pull_policy", "depends_on", "profiles", "scale"})
_DIGEST = 16
_SHARED = ("network_mode", "ipc", "pid")
_DEFAULT_GRACE = 10.0


def services_from(resolved: Resolved, project: str) -> dict[str, Service]:
    """Return every service of the model, in its order.

    Raises:
        InvalidDesiredState: the text is not a Compose model; Compose itself never writes such a text.
    """
    # Cached: digesting every field of every service takes 10 ms, and most edits change no Compose file.
    hashes, digests = tuple(resolved.hashes.items()), tuple(resolved.digests.items())
    return dict(_services(resolved.text, hashes, digests, project, resolved.version))


@lru_cache(maxsize=4)
def _services(
    text: bytes,
    hashes: tuple[tuple[str, str], ...],
    digests: tuple[tuple[str, str], ...],
    project: str,
    version: str,
) -> Mapping[str, Service]:
    model, known, keyed = with_defaults(_loaded(text), version), dict(hashes), dict(digests)
    networks = _real_names(model.get("networks"), project)
    return {
        name: _service(name, entry or {}, known.get(name, ""), project, networks, model, keyed)
        for name, entry in (model.get("services") or {}).items()
    }


def warnings_from(resolved: Resolved) -> tuple[str, ...]:
    """Return warnings about Compose settings that can't be carried out, as a whole or at a start."""
    model = _loaded(resolved.text)
    return (*_unsupported(model), *start_warnings(model, resolved.values))


def _unsupported(model: Mapping[str, Any]) -> Iterator[str]:
    services: Mapping[str, Any] = model.get("services") or {}
    for name, entry in services.items():
        provider = (entry or {}).get("provider")
        if provider:
            users = [
                user for user, other in services.items() if name in ((other or {}).get("depends_on") or ())
            ]
            also = f", nor what depends on it ({', '.join(users)})" if users else ""
            yield (
                f"{name}: is given by the provider {provider.get('type')}, which only Docker Compose runs: "
                f"it is not started here{also}"
            )
        if (entry or {}).get("models"):
            models = ", ".join(entry["models"])
            yield (
                f"{name}: uses models: ({models}): Docker Compose creates the container only if its model "
                "plugin is installed, and the address of the model is not updated afterwards"
            )


def _loaded(text: bytes) -> dict[str, Any]:
    try:
        model = load_json(text)
    except ValueError as error:
        raise InvalidDesiredState((Mistake("resolved model", 0, 0, f"can't be read: {error}"),)) from None
    if not isinstance(model, dict):
        raise InvalidDesiredState((Mistake("resolved model", 0, 0, "is not a mapping"),))
    return model


def _service(
    name: str,
    entry: Mapping[str, Any],
    config_hash: str,
    project: str,
    networks: Mapping[str, str],
    model: Mapping[str, Any],
    digests: Mapping[str, str],
) -> Service:
    fields = _fields(entry)
    mounts = (*_binds(entry), *_configs_and_secrets(entry, model, digests))
    contents = [[mount.target, mount.content] for mount in mounts if mount.content]
    return Service(
        name=name,
        container_name=entry.get("container_name") or f"{project}-{name}-1",
        named=bool(entry.get("container_name")),
        replicas=_replicas(entry),
        image="" if entry.get("provider") else entry.get("image") or f"{project}-{name}",
        config_hash=config_hash,
        definition=_digest(sorted(fields.items())),
        fields=fields,
        depends_on=tuple(_depends_on(entry.get("depends_on"))),
        has_build=bool(entry.get("build")),
        pull_policy=entry.get("pull_policy") or "",
        restart=_restart(entry),
        stop_grace=_seconds(entry.get("stop_grace_period"), _DEFAULT_GRACE),
        check=_check(entry.get("healthcheck")),
        networks=_networks(entry, networks),
        shares=tuple(_shares(entry)),
        volumes_from=tuple(_volumes_from(entry)),
        ports=tuple(_ports(entry.get("ports"))),
        publishes=bool(entry.get("ports")),
        mounts=mounts,
        contents=_digest(contents) if contents else "",
        start=start_work(entry, model),
        provider=str((entry.get("provider") or {}).get("type") or ""),
    )


def _replicas(entry: Mapping[str, Any]) -> int:
    # Compose rejects a file where the two numbers differ; the resolved model may hold either or both.
    for value in ((entry.get("deploy") or {}).get("replicas"), entry.get("scale")):
        if isinstance(value, int) and value >= 0:
            return value
    return 1


def _depends_on(value: Any) -> Iterator[Dependency]:
    if isinstance(value, list):
        value = {name: {} for name in value}
    for name, options in (value or {}).items():
        entry = options or {}
        yield Dependency(
            name,
            Condition(entry.get("condition") or Condition.STARTED),
            bool(entry.get("restart", False)),
            bool(entry.get("required", True)),
        )


def _restart(entry: Mapping[str, Any]) -> str:
    # Without `restart`, Compose uses deploy.restart_policy.
    if entry.get("restart"):
        return str(entry["restart"])
    policy = (entry.get("deploy") or {}).get("restart_policy") or {}
    condition = policy.get("condition", "any") if policy else "none"
    if condition == "on-failure":
        attempts = policy.get("max_attempts")
        return f"on-failure:{attempts}" if attempts else "on-failure"
    return "always" if condition == "any" else "no"


def _check(value: Any) -> HealthCheck | None:
    if not value or value.get("disable"):
        return None
    test = value.get("test")
    if isinstance(test, str):
        test = ["CMD-SHELL", test]
    kind, *rest = test or ["NONE"]
    if kind not in {"CMD", "CMD-SHELL"} or not rest:
        return None
    return HealthCheck(
        tuple(rest) if kind == "CMD" else ("/bin/sh", "-c", rest[0]),
        _seconds(value.get("interval"), 30.0),
        _seconds(value.get("timeout"), 30.0),
        value.get("retries") or 3,
        _seconds(value.get("start_period"), 0.0),
    )


def _seconds(value: Any, default: float) -> float:
    if value is None or value == "":
        return default
    return parse_duration(str(value))


def _real_names(value: Any, project: str) -> dict[str, str]:
    return {key: (entry or {}).get("name") or f"{project}_{key}" for key, entry in (value or {}).items()}


def _networks(entry: Mapping[str, Any], real: Mapping[str, str]) -> tuple[str, ...]:
    if entry.get("network_mode"):
        return ()
    return tuple(real.get(key, key) for key in entry.get("networks") or ())


def _shares(entry: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, None] = {}
    for key in _SHARED:
        kind, _, name = str(entry.get(key) or "").partition(":")
        if kind == "service" and name:
            found[name] = None
    yield from found


def _volumes_from(entry: Mapping[str, Any]) -> Iterator[str]:
    names = (str(value).partition(":")[0] for value in entry.get("volumes_from") or ())
    yield from dict.fromkeys(name for name in names if name != "container")


def _binds(entry: Mapping[str, Any]) -> Iterator[Mount]:
    for volume in entry.get("volumes") or ():
        if volume.get("type") == "bind" and volume.get("source") and volume.get("target"):
            create, writable = creates_source(volume), not volume.get("read_only")
            yield Mount("bind", volume["target"], volume["source"], create=create, writable=writable)


def _configs_and_secrets(
    entry: Mapping[str, Any], model: Mapping[str, Any], digests: Mapping[str, str]
) -> Iterator[Mount]:
    """Yield the configs and secrets of a service: files of the host, and values copied into the container."""
    for kind in (CONFIG, SECRET):
        definitions = model.get(f"{kind}s") or {}
        for reference in entry.get(f"{kind}s") or ():
            definition = definitions.get(reference.get("source", "")) or {}
            target = target_of(kind, reference)
            if definition.get("file"):
                yield Mount(kind, target, definition["file"])
                continue
            keyed = digests.get(value_key(kind, reference.get("source", "")), "")
            # The plain digest is for comparison with records of versions before keyed digests.
            content = None if definition.get("environment") else definition.get("content")
            plain = "" if content is None else _digest([target, content])
            if keyed or plain:
                yield Mount(kind, target, content=keyed or plain, plain=plain if keyed else "")


def _ports(value: Any) -> Iterator[str]:
    for port in value or ():
        host, target = port.get("published"), port.get("target")
        if host:
            suffix = "" if port.get("protocol", "tcp") == "tcp" else f"/{port['protocol']}"
            yield f"{host}:{target}{suffix}"


def _fields(entry: Mapping[str, Any]) -> dict[str, str]:
    kept = {key: value for key, value in entry.items() if _hashed(key)}
    deploy = kept.get("deploy")
    if isinstance(deploy, dict):
        kept["deploy"] = {key: value for key, value in deploy.items() if key != "replicas"}
    # The digest includes the path, so that equal secrets in two places have different digests.
    return {path: _digest([path, value]) for path, value in _leaves(kept, "") if _is_set(path, value)}


def _is_set(path: str, value: Any) -> bool:
    # Compose versions differ in the unset keys that they write (`command: null`, `resources: {}`).
    return value != {} and (value is not None or "." in path)


def _hashed(key: str) -> bool:
    return key not in _NOT_HASHED and not key.startswith("x-")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield from _by_target(value, path)
    else:
        yield path, value


def _by_target(items: list[dict[str, Any]], path: str) -> Iterator[tuple[str, Any]]:
    # Mounts and ports are named by their target, so that an additional one renames none of the others.
    by_target: dict[str, list[Any]] = {}
    for index, item in enumerate(items):
        by_target.setdefault(str(item.get("target", index)), []).append(item)
    for target, same in by_target.items():
        yield f"{path}.{target}", same


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
