"""What an engine's or Compose's refusal means: a stable word for programs, a sentence for people.

Pure text work, shared by the API calls and the Compose calls, because both pass on what the engine said.
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
        # Of a start that the engine's own end cut short: it fails for ever, of this container.
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
_PORT = re.compile(
    r":(\d+)(?: failed: port is already allocated|: bind: address already in use)|:(\d+)\b.*alloc"
)
_USERINFO = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_LONGEST = 600
"""Characters of a message; what a person needs to know fits, a whole build log does not."""


def reason_of(text: str) -> str:
    """The stable word for a refusal; ``step_failed`` where none fits."""
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), "step_failed")


def failure(text: str, *, fallback: str = "step_failed") -> StepFailed:
    """The error for a refusal, impossible where the same inputs can only fail again."""
    reason = reason_of(text)
    message = truncate(text)
    if reason == "definition_invalid" or (reason == "image_unavailable" and _FINAL.search(text)):
        return PermanentStepFailure(message, reason)
    return StepFailed(message, fallback if reason == "step_failed" else reason)


def lost_engine(text: str) -> EngineUnavailable | None:
    """The error for a message that means: there was no engine to ask."""
    return EngineUnavailable(truncate(text)) if _NO_ENGINE.search(text) else None


def wanted_port(text: str) -> int:
    """The host port that a message says is taken; 0 where it names none."""
    found = _PORT.search(text)
    return int(found.group(1) or found.group(2)) if found else 0


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without these values, and without passwords in addresses."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USERINFO.sub("***", text)


def truncate(text: str) -> str:
    """``text`` in one line of bearable length, without passwords in addresses."""
    line = redact(" ".join(text.split()))
    line = line.removeprefix("Error response from daemon: ").removeprefix("Error: ")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
