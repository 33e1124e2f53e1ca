"""Creates the environment that `make` works in: `python3 -m reconciler.quickstart.venv .venv test`.

It includes Docker Compose unless the machine has a suitable one; the tests always get the pinned one.

Runs under the Python 3.11 or newer of the machine, so standard library only. Takes a tenth of a second if
nothing has changed: a stamp in the environment records its inputs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from reconciler.engine.compose.discovery import find_compose, programs_on
from reconciler.engine.compose.release import VERSION, architecture, is_genuine, program_path
from reconciler.engine.compose.remedy import remedy, this_host
from reconciler.engine.compose.versions import Fitness
from reconciler.errors import StepFailed
from reconciler.quickstart.compose_fetch import FetchError, provide
from reconciler.quickstart.host import SetupError, install, is_debian, is_root, report

ROOT = Path(__file__).resolve().parents[2]
STAMP = ".service-manager.json"
"""Marks the folder for `make clean` as created by `make`."""
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
_TRIES = 2
_PIP = (
    *("-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"),
    *("install", "--retries", "4", "--timeout", "20"),
)


def inputs(pyproject: bytes, project: Path, environment: Path) -> str:
    """Return a digest of everything that requires another run of pip when it changes.

    That includes the lock files and the paths, since moving the environment or the checkout breaks it, but
    not the settings of linters.
    """
    content = tomllib.loads(pyproject.decode())
    parts = [content.get("build-system"), content.get("project"), content.get("tool", {}).get("setuptools")]
    locks = [(project / name).read_text() for name in LOCKS if (project / name).exists()]
    places = [str(project), str(environment), sys.version]
    text = json.dumps([parts, locks, places], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def missing_extras(stamp: str, digest: str, wanted: list[str]) -> list[str] | None:
    """Return the extras to install, including installed ones; None: the environment is up to date."""
    try:
        known = json.loads(stamp)
        there = known["extras"] if known["inputs"] == digest else []
        up_to_date = known["inputs"] == digest and set(wanted) <= set(there)
    except (ValueError, KeyError, TypeError):
        return wanted
    return None if up_to_date else sorted({*there, *wanted})


def ensure(environment: Path, extras: list[str]) -> None:
    """Create or update the environment, with the project installed editable.

    Raises:
        SetupError: it can't be created; says what to do.
    """
    stamp = environment / STAMP
    digest = inputs((ROOT / "pyproject.toml").read_bytes(), ROOT, environment)
    python = environment / "bin" / "python"
    wanted = missing_extras(stamp.read_text() if python.exists() and stamp.exists() else "", digest, extras)
    if wanted is None:
        return
    report(
        f"Creating the Python environment in {_shown(environment)}; the first time this takes half a minute."
    )
    if not _works(python):
        _create(environment)
    _install(python, wanted)
    stamp.write_text(json.dumps({"inputs": digest, "extras": wanted}))


def ensure_compose(environment: Path, *, pinned: bool) -> None:
    """Install Docker Compose in the environment if it is needed; a failure is reported, but is no error.

    ``pinned``: it is always needed; otherwise only if the machine has no suitable one.
    """
    place, kind = program_path(environment), architecture(platform.machine())
    if is_genuine(place, kind) or (not pinned and _fitness() is Fitness.GOOD):
        return
    report(f"Fetching Docker Compose {VERSION}.")
    try:
        provide(place, kind, here=programs_on(os.environ), python=str(environment / "bin" / "python"))
    except FetchError as problem:
        report(f"It can't be fetched: {problem}.\nTo install it: {remedy(this_host())}")


def _fitness() -> Fitness:
    try:
        return find_compose().verdict.fitness
    except StepFailed:
        return Fitness.UNUSABLE


def _create(environment: Path) -> None:
    if environment.exists() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").exists():
        raise SetupError(f"{environment} is no Python environment and stays as it is. Choose another: VENV=…")
    try:
        import ensurepip  # noqa: F401  (a separate package on Debian)
    except ImportError:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not (is_root() and is_debian()):
            remedy = f"install it, on Debian and Ubuntu with: sudo apt-get install {package}"
            raise SetupError(f"This Python has no venv; {remedy}") from None
        install([package])
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=False)
    if done.returncode:
        raise SetupError(f"{sys.executable} could not create an environment in {environment}")


def _install(python: Path, extras: list[str]) -> None:
    runtime, development, build = LOCKS
    lock = development if "test" in extras else runtime
    _pip(python, "--require-hashes", "--no-deps", "-r", str(ROOT / lock), "-r", str(ROOT / build))
    # Built by the locked setuptools, not by one that pip fetches for the build.
    _pip(python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _pip(python: Path, *words: str) -> None:
    for left in reversed(range(_TRIES)):
        # pip itself retries connections, but not an index that answers 503.
        done = subprocess.run([python, *_PIP, *words], cwd=ROOT, check=False)
        if not done.returncode:
            return
        if left:
            report("pip failed; trying again.")
            time.sleep(3)
    raise SetupError("pip could not install the dependencies of Service Manager; see its output above")


def _works(python: Path) -> bool:
    # Check pip too: an interrupted creation leaves a Python without it.
    try:
        done = subprocess.run([python, "-c", "import pip"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def main(arguments: list[str]) -> int:
    """Create the environment ``arguments[0]`` with the extras in the rest; return the exit code."""
    try:
        environment, extras = Path(arguments[0]).absolute(), sorted(arguments[1:])
        ensure(environment, extras)
        ensure_compose(environment, pinned="test" in extras)
    except SetupError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
