"""Classifies refusals of an engine or of Compose: a stable word for programs, a sentence for people.

Pure text processing, shared by API and Compose calls, because both pass on the engine's messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from reconciler.errors import EngineUnavailable, PermanentStepFailure, StepFailed

_FLAGS = re.IGNORECASE | re.DOTALL

_REASONS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(pattern, _FLAGS))
    for reason, pattern in (
        ("name_conflict", r"container name .* is already in use|name .* is already in use by container"),
        ("port_conflict", r"port is already allocated|address already in use|ports are not available"),
        ("disk_full", r"no space left on device|disk quota exceeded"),
        ("volume_missing", r"external volume .* not found|volume .* declared as external, but could not be"),
        # For a start interrupted by the engine's shutdown: this container can never start again.
        ("start_left_over", r"task \S+ already exists"),
        ("network_missing", r"network \S+ .{0,40}not (?:be )?found|network \S+ not found|network_not_found"),
        (
            "mount_missing",
            r"bind source path does not exist|error mounting|are you trying to mount a directory"
            r"|bind mount .*no such file|mount .*no such file or directory",
        ),
        (
            "image_unavailable",
            r"no such image|pull access denied|manifest (?:for .* )?(?:unknown|not found)|not found: manifest"
            r"|repository .* not found|failed to resolve reference|unable to get image"
            r"|image .* not found"
            r"|pull policy.*never|name unknown|toomanyrequests|registry.*(?:no such host|timeout|refused)"
            r"|no matching manifest",
        ),
        (
            "definition_invalid",
            r"invalid (?:mount config|reference format|volume specification|containerport|hostport"
            r"|restart policy|compose project|publish|memory|cpu|label|hostname|ip address|port|user)"
            r"|no such service|undefined service|additional propert|is not supported"
            r"|unknown (?:or invalid )?runtime|could not select device driver|conflicting options",
        ),
        (
            "denied",
            r"permission denied|operation not permitted|unauthorized|authentication required|access denied",
        ),
    )
)
_FINAL = re.compile(
    r"pull access denied|manifest (?:for .* )?(?:unknown|not found)|repository .* not found|name unknown"
    r"|no matching manifest|invalid reference format",
    _FLAGS,
)
_NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|is the docker daemon running|error during connect"
    r"|dial unix .*(?:no such file|connection refused|permission denied)"
    r"|failed to connect to the docker api",
    _FLAGS,
)
_PORTS = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        # Docker 20.10 to 27, and Podman: "Bind for 0.0.0.0:80 failed: port is already allocated", and
        # "listen tcp4 0.0.0.0:80: bind: address already in use".
        r":(\d+)(?: failed: port is already allocated|: bind: address already in use)",
        # Docker 28: "failed to bind host port for 0.0.0.0:80:172.18.0.2:8080/tcp: address already in use".
        # Docker 29: "failed to bind host port 0.0.0.0:80/tcp: address already in use".
        r"failed to bind host port (?:for )?(?:\[[^\]]*\]|[\d.]*|::):(\d+)[:/]",
        r":(\d+)\b.*alloc",
    )
)
_USERINFO = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_LONGEST = 600
"""Maximum characters of a message: enough for the reason, too few for a whole build log."""


def reason_of(text: str) -> str:
    """Return the stable word for a refusal; ``step_failed`` if none fits."""
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), "step_failed")


def failure(text: str, *, fallback: str = "step_failed") -> StepFailed:
    """Return the error for a refusal: permanent if it recurs with the same inputs."""
    reason = reason_of(text)
    message = truncate(text)
    if reason == "definition_invalid" or (reason == "image_unavailable" and _FINAL.search(text)):
        return PermanentStepFailure(message, reason)
    return StepFailed(message, fallback if reason == "step_failed" else reason)


def lost_engine(text: str) -> EngineUnavailable | None:
    """Return the error for a message that means that no engine answered."""
    return EngineUnavailable(truncate(text)) if _NO_ENGINE.search(text) else None


def wanted_port(text: str) -> int:
    """Return the host port that a message reports as taken; 0 if it names none."""
    found = next(filter(None, (pattern.search(text) for pattern in _PORTS)), None)
    return int(found.group(1)) if found else 0


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without these values, and without passwords in addresses."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USERINFO.sub("***", text)


def truncate(text: str) -> str:
    """Return ``text`` as one line of limited length, without passwords in addresses."""
    line = redact(" ".join(text.split()))
    line = line.removeprefix("Error response from daemon: ").removeprefix("Error: ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
