"""Makes the environment that `make` works in: `python3 -m reconciler.quickstart.venv .venv test`.

Docker Compose belongs to it, unless the machine has a good one of its own; the tests always get
the pinned one.

Run by whatever Python 3.11 or newer the machine has, so standard library only. Costs a tenth of a second
where everything is as it was: a stamp in the environment says what it was made of.
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
from reconciler.quickstart.compose_fetch import Unobtainable, provide
from reconciler.quickstart.host import Unprepared, install, is_debian, is_root, say

ROOT = Path(__file__).resolve().parents[2]
STAMP = ".service-manager.json"
"""Also the sign, for `make clean`, that the folder is of our making."""
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
_TRIES = 2
_PIP = (
    *("-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"),
    *("install", "--retries", "4", "--timeout", "20"),
)


def inputs(pyproject: bytes, project: Path, environment: Path) -> str:
    """A digest of all that, when it changes, needs another run of pip: not of rules for linters, say.

    The lock files of the project belong to it, and the places, since an environment that was moved, or whose
    checkout was, is broken.
    """
    content = tomllib.loads(pyproject.decode())
    parts = [content.get("build-system"), content.get("project"), content.get("tool", {}).get("setuptools")]
    locks = [(project / name).read_text() for name in LOCKS if (project / name).exists()]
    places = [str(project), str(environment), sys.version]
    text = json.dumps([parts, locks, places], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def missing_extras(stamp: str, digest: str, wanted: list[str]) -> list[str] | None:
    """The extras to install, those that are there already among them; None where nothing is to do."""
    try:
        known = json.loads(stamp)
        there = known["extras"] if known["inputs"] == digest else []
        up_to_date = known["inputs"] == digest and set(wanted) <= set(there)
    except (ValueError, KeyError, TypeError):
        return wanted
    return None if up_to_date else sorted({*there, *wanted})


def ensure(environment: Path, extras: list[str]) -> None:
    """The environment, with the project installed editable.

    Raises:
        Unprepared: with what to do.
    """
    stamp = environment / STAMP
    digest = inputs((ROOT / "pyproject.toml").read_bytes(), ROOT, environment)
    python = environment / "bin" / "python"
    wanted = missing_extras(stamp.read_text() if python.exists() and stamp.exists() else "", digest, extras)
    if wanted is None:
        return
    say(f"Making the Python environment in {_shown(environment)}; the first time this takes half a minute.")
    if not _works(python):
        _create(environment)
    _install(python, wanted)
    stamp.write_text(json.dumps({"inputs": digest, "extras": wanted}))


def ensure_compose(environment: Path, *, pinned: bool) -> None:
    """Have Docker Compose in the environment where it is needed; says so, and no more, where it can't be had.

    With ``pinned`` it is needed anyway, else only where the machine has no good one.
    """
    place, kind = program_path(environment), architecture(platform.machine())
    if is_genuine(place, kind) or (not pinned and _fitness() is Fitness.GOOD):
        return
    say(f"Fetching Docker Compose {VERSION}.")
    try:
        provide(place, kind, here=programs_on(os.environ), python=str(environment / "bin" / "python"))
    except Unobtainable as problem:
        say(f"It can't be had: {problem}.\nTo have it: {remedy(this_host())}")


def _fitness() -> Fitness:
    try:
        return find_compose().verdict.fitness
    except StepFailed:
        return Fitness.UNUSABLE


def _create(environment: Path) -> None:
    if environment.exists() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").exists():
        raise Unprepared(f"{environment} is no Python environment; it stays as it is. Choose another: VENV=…")
    try:
        import ensurepip  # noqa: F401  (Debian has it in a package of its own)
    except ImportError:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not (is_root() and is_debian()):
            remedy = f"install it, on Debian and Ubuntu with: sudo apt-get install {package}"
            raise Unprepared(f"This Python has no venv; {remedy}") from None
        install([package])
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=False)
    if done.returncode:
        raise Unprepared(f"{sys.executable} could not make an environment in {environment}")


def _install(python: Path, extras: list[str]) -> None:
    runtime, development, build = LOCKS
    lock = development if "test" in extras else runtime
    _pip(python, "--require-hashes", "--no-deps", "-r", str(ROOT / lock), "-r", str(ROOT / build))
    # Built by the setuptools of the lock, and not by one that is fetched for the occasion.
    _pip(python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _pip(python: Path, *words: str) -> None:
    for left in reversed(range(_TRIES)):
        # pip retries connections; this is for the rest, such as an index that answers 503.
        done = subprocess.run([python, *_PIP, *words], cwd=ROOT, check=False)
        if not done.returncode:
            return
        if left:
            say("pip did not get through; trying again.")
            time.sleep(3)
    raise Unprepared("pip could not install what Service Manager needs; its reasons are above")


def _works(python: Path) -> bool:
    # pip too: an environment that was cut off in the making has a Python already.
    try:
        done = subprocess.run([python, "-c", "import pip"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def main(arguments: list[str]) -> int:
    """ENVIRONMENT and the extras that it should have."""
    try:
        environment, extras = Path(arguments[0]).absolute(), sorted(arguments[1:])
        ensure(environment, extras)
        ensure_compose(environment, pinned="test" in extras)
    except Unprepared as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
