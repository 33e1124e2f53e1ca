"""Compose's work around the start and stop of a container, taken from the resolved model. Pure.

The engine's own create and start do none of it: Compose copies files into the container before its start
and runs commands before and after. Only names of variables are here, not their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECRET, CONFIG = "secret", "config"
_FOLDERS = {CONFIG: "/", SECRET: "/run/secrets/"}
_MODE = 0o444
"""Compose's default mode of a file."""

API_SOCKET_FILE = "/run/secrets/docker/config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFile:
    """One file to copy into the container: a config or secret whose value is not in a file of the host.

    ``variable`` is the name of the variable that holds the value; empty: the value is ``content``. ``mode``
    is a number; ``uid`` and ``gid`` are as in the model, empty if it sets none.
    """

    kind: str
    source: str
    target: str
    content: str = field(default="", repr=False)
    variable: str = ""
    mode: int = _MODE
    uid: str = ""
    gid: str = ""

    @property
    def key(self) -> str:
        """The key of its value in ``Resolved.values`` and ``Resolved.digests``."""
        return value_key(self.kind, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One lifecycle hook. ``environment`` maps a name without a value to None.

    ``image`` applies to pre_start only; empty: the service's image.
    """

    command: tuple[str, ...] = field(default=(), repr=False)
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    image: str = ""
    per_replica: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWork:
    """The start work of one service. ``environment`` is that of the service; pre_start hooks get it too.

    ``api_socket``: the container also gets the registry credentials of the user that runs Compose.
    """

    files: tuple[InjectedFile, ...] = ()
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    read_only: bool = False
    api_socket: bool = False


NOTHING = StartWork()


def value_key(kind: str, source: str) -> str:
    """Return the key of a config's or secret's value: ``secret db_password``."""
    return f"{kind} {source}"


def start_work(entry: Mapping[str, Any], model: Mapping[str, Any]) -> StartWork:
    """Return the start work of one service (``entry``) of the resolved ``model``."""
    hooks = {stage: _hooks(entry.get(stage)) for stage in ("pre_start", "post_start", "pre_stop")}
    files = tuple(injected_files(entry, model))
    api_socket = bool(entry.get("use_api_socket"))
    if not (files or api_socket or any(hooks.values())):
        return NOTHING
    return StartWork(
        files=files,
        **hooks,
        environment=_environment(entry.get("environment")) if hooks["pre_start"] else {},
        read_only=bool(entry.get("read_only")),
        api_socket=api_socket,
    )


def injected_files(entry: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[InjectedFile]:
    """Yield the configs and secrets of a service that Compose copies into the container."""
    for kind in (CONFIG, SECRET):
        sources = model.get(f"{kind}s") or {}
        for reference in entry.get(f"{kind}s") or ():
            source = reference.get("source") or ""
            definition = sources.get(source) or {}
            variable = definition.get("environment") or ""
            if definition.get("file") or (not variable and definition.get("content") is None):
                continue
            yield InjectedFile(
                kind=kind,
                source=source,
                target=target_of(kind, reference),
                content="" if variable else unescaped(definition["content"]),
                variable=variable,
                mode=_mode(reference.get("mode")),
                uid=str(reference.get("uid") or ""),
                gid=str(reference.get("gid") or ""),
            )


def target_of(kind: str, reference: Mapping[str, Any]) -> str:
    """Return the absolute path of a config or secret in the container."""
    target: str = reference.get("target") or reference.get("source") or ""
    return target if target.startswith("/") else f"{_FOLDERS[kind]}{target}"


def unescaped(text: object) -> str:
    """Undo Compose's escaping: the resolved model doubles each dollar sign."""
    return str(text).replace("$$", "$")


def start_warnings(model: Mapping[str, Any], values: Mapping[str, str | None]) -> Iterator[str]:
    """Yield warnings about start work that will fail, or that has no visible effect."""
    for name, entry in (model.get("services") or {}).items():
        work = start_work(entry or {}, model)
        if work.read_only and work.api_socket:
            yield f"{name}: use_api_socket: its credentials can't be copied into a read-only container"
        for file in work.files:
            what = f"{name}: {file.kind} {file.source}"
            if file.variable and values.get(file.key, "") is None:
                yield f"{what}: the variable {file.variable} is not set, so the container can't be started"
            elif work.read_only:
                yield f"{what}: nothing can be copied into a read-only container; give it by `file:`"
            elif hidden := _tmpfs_over(entry, file.target):
                yield f"{what}: the tmpfs at {hidden} hides {file.target} as soon as the container runs"


def _tmpfs_over(entry: Mapping[str, Any], target: str) -> str:
    tmpfs = entry.get("tmpfs") or ()
    places = [place.partition(":")[0] for place in ([tmpfs] if isinstance(tmpfs, str) else tmpfs)]
    places += [v.get("target") or "" for v in entry.get("volumes") or () if v.get("type") == "tmpfs"]
    return next((p for p in places if p and target.startswith(f"{p.rstrip('/')}/")), "")


def _hooks(entries: Any) -> tuple[Hook, ...]:
    return tuple(
        Hook(
            command=tuple(unescaped(word) for word in _words(hook.get("command"))),
            user=str(hook.get("user") or ""),
            privileged=bool(hook.get("privileged")),
            working_dir=str(hook.get("working_dir") or ""),
            environment=_environment(hook.get("environment")),
            image=str(hook.get("image") or ""),
            per_replica=bool(hook.get("per_replica")),
        )
        for hook in entries or ()
    )


def _words(command: Any) -> list[Any]:
    return command if isinstance(command, list) else ["/bin/sh", "-c", command] if command else []


def _environment(value: Any) -> dict[str, str | None]:
    return {
        name: None if text is None else unescaped(text)
        for name, text in (value.items() if isinstance(value, dict) else ())
    }


def _mode(value: Any) -> int:
    # Compose writes octal digits; before 2.31 it wrote a plain number.
    if value is None:
        return _MODE
    return value if isinstance(value, int) else int(str(value), 8)
