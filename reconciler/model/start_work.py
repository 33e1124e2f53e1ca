"""What Compose does around the start and stop of a container, as the resolved model asks for it. Pure.

The engine's own create and start know none of it: files that Compose copies into the container before its
start, and commands that it runs before and after. Values of variables are not here, only their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECRET, CONFIG = "secret", "config"
_FOLDERS = {CONFIG: "/", SECRET: "/run/secrets/"}
_MODE = 0o444
"""Compose's own mode of a file for which the model names none."""

API_SOCKET_FILE = "/run/secrets/docker/config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFile:
    """One file to copy into the container: a config or secret whose value is in no file of the host.

    ``variable`` is the name of the variable that holds the value; empty: it is ``content``. ``mode`` as a
    number, ``uid`` and ``gid`` as the model writes them, empty where it names none.
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
        """What its value goes by in ``Resolved.values`` and ``Resolved.digests``."""
        return value_key(self.kind, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One lifecycle hook. ``environment`` maps to None where the model gives no value.

    ``image`` is for pre_start alone, empty: that of the service.
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
    """All of one service. ``environment`` is the service's own, which pre_start hooks get too.

    ``api_socket``: the container also gets the credentials of whoever runs Compose.
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
    """The name of a config's or secret's value: ``secret db_password``."""
    return f"{kind} {source}"


def start_work(entry: Mapping[str, Any], model: Mapping[str, Any]) -> StartWork:
    """What one service of the resolved model needs; ``model`` is the whole of it."""
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
    """The configs and secrets of a service that Compose copies in, at the targets that it gives them."""
    for kind in (CONFIG, SECRET):
        sources = model.get(f"{kind}s") or {}
        for told in entry.get(f"{kind}s") or ():
            source = told.get("source") or ""
            what = sources.get(source) or {}
            if what.get("file") or (not what.get("environment") and what.get("content") is None):
                continue
            yield InjectedFile(
                kind=kind,
                source=source,
                target=target_of(kind, told),
                content="" if what.get("environment") else unescaped(what["content"]),
                variable=what.get("environment") or "",
                mode=_mode(told.get("mode")),
                uid=str(told.get("uid") or ""),
                gid=str(told.get("gid") or ""),
            )


def target_of(kind: str, told: Mapping[str, Any]) -> str:
    """The absolute path of a config or secret in the container."""
    target: str = told.get("target") or told.get("source") or ""
    return target if target.startswith("/") else f"{_FOLDERS[kind]}{target}"


def unescaped(text: object) -> str:
    """A text of the resolved model as it is meant: Compose writes each dollar twice there."""
    return str(text).replace("$$", "$")


def start_warnings(model: Mapping[str, Any], values: Mapping[str, str | None]) -> Iterator[str]:
    """What Compose will not be able to do at a start, or does without anybody noticing."""
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
    told = entry.get("tmpfs") or ()
    places = [place.partition(":")[0] for place in ([told] if isinstance(told, str) else told)]
    places += [v.get("target") or "" for v in entry.get("volumes") or () if v.get("type") == "tmpfs"]
    return next((p for p in places if p and target.startswith(f"{p.rstrip('/')}/")), "")


def _hooks(told: Any) -> tuple[Hook, ...]:
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
        for hook in told or ()
    )


def _words(command: Any) -> list[Any]:
    return command if isinstance(command, list) else ["/bin/sh", "-c", command] if command else []


def _environment(told: Any) -> dict[str, str | None]:
    return {
        name: None if value is None else unescaped(value)
        for name, value in (told.items() if isinstance(told, dict) else ())
    }


def _mode(told: Any) -> int:
    # Compose writes it as octal digits; before 2.31 as a plain number.
    if told is None:
        return _MODE
    return told if isinstance(told, int) else int(str(told), 8)
