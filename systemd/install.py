"""Installs Service Manager on a machine or builds a Debian package: `make install`, `uninstall`, `deb`.

Both write the same files: a separate Python environment under the prefix, with Docker Compose in it, the unit
with its fragments, and the configuration. The environment is built without `venv`, so that it can be created
in one place (DESTDIR, a package) for another, and by one Python for several.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

from reconciler.engine.compose.discovery import find_compose, programs_on
from reconciler.engine.compose.release import architecture, program_path
from reconciler.engine.compose.remedy import download, remedy, this_host
from reconciler.errors import StepFailed
from reconciler.quickstart.compose_fetch import FetchError, provide

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "systemd"
LOCK = ROOT / "requirements.lock"
NAME = "service-manager"
ETC = Path("/etc/service-manager")
DROP_IN = Path("/etc/systemd/system/service-manager.service.d/api-key.conf")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Further Pythons that a package supports, if every library is available for them."""
_PARTS = ("reconciler", "api", "dashboard", "desired-state", "pyproject.toml", "README.md", "LICENSE")
_LAUNCHER = """\
#!{python} -I
import sys

from reconciler.cli.main import main

sys.exit(main())
"""


class InstallError(Exception):
    """The installation failed; the message says why, and what to do."""


class Tree:
    """Files below DESTDIR, named by their paths on the target machine."""

    def __init__(self, destdir: str) -> None:
        self._destdir = destdir.rstrip("/")

    def at(self, path: Path) -> Path:
        """The location below DESTDIR of a path on the target machine."""
        return Path(f"{self._destdir}{path}")

    def write(self, path: Path, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file atomically, with its parent folders."""
        there = self.at(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        new = there.with_name(f".{there.name}.new")
        new.write_bytes(content if isinstance(content, bytes) else content.encode())
        new.chmod(mode)
        new.replace(there)


class Paths:
    """The paths on the target machine, by the prefix."""

    def __init__(self, prefix: Path) -> None:
        # systemd reads few folders, so a custom prefix can't hold files for it.
        shared = str(prefix) in {"/usr", "/usr/local"}
        self.library = prefix / "lib" / NAME
        self.program = prefix / "bin" / NAME
        self.example = prefix / "share/doc" / NAME / "service-manager.env"
        self.drop_in_example = prefix / "share/doc" / NAME / DROP_IN.name
        self.unit = (prefix / "lib" if shared else Path("/etc")) / "systemd/system/service-manager.service"
        self.sysusers = (prefix / "lib" if shared else Path("/etc")) / "sysusers.d/service-manager.conf"
        self.tmpfiles = (prefix / "lib" if shared else Path("/etc")) / "tmpfiles.d/service-manager.conf"

    def write(self, tree: Tree) -> None:
        """Write all files except the environment and the configuration."""
        unit = (HERE / "service-manager.service").read_text()
        tree.write(self.unit, unit.replace("=/usr/bin/service-manager ", f"={self.program} "))
        tree.write(self.sysusers, (HERE / "service-manager.sysusers").read_text())
        tree.write(self.tmpfiles, (HERE / "service-manager.tmpfiles").read_text())
        tree.write(self.library / "settle", (HERE / "settle").read_text(), 0o755)
        tree.write(self.library / DROP_IN.name, (HERE / DROP_IN.name).read_text())
        link = tree.at(self.program)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.library / "bin" / NAME, self.program.parent))


# --- the environment ---------------------------------------------------------------------------------------


def run(*command: str | Path) -> None:
    """Run a program that prints its own errors.

    Raises:
        InstallError: its exit code is not 0.
    """
    if subprocess.run(command, cwd="/", check=False).returncode:
        raise InstallError(f"this failed: {' '.join(map(str, command))}")


def pip(*words: str | Path) -> None:
    """Run the pip of the current environment."""
    run(sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input", *words)


def bundle_python(there: Path, library: Path) -> Path:
    """Copy the Python of the current environment into ``there``, for machines whose own is too old.

    It will run at ``library``; returns the interpreter's path on that machine. It must be relocatable,
    as those of uv are. Parts that the daemon never needs are left out.

    Raises:
        InstallError: the copy does not run independently.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    left_out = shutil.ignore_patterns(
        *("__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"),
        *("config-*", "tcl*", "tk*", "itcl*", "thread2*", "pkgconfig", "*.a"),
    )
    shutil.copytree(base / "lib", there / "python/lib", symlinks=True, ignore=left_out)
    (there / "python/bin").mkdir()
    shutil.copy2((base / "bin" / version).resolve(), there / "python/bin" / version)
    for licence in base.glob("LICENSE*"):
        shutil.copy2(licence, there / "python")
    loads = "import ctypes, sqlite3, ssl, sys; print(sys.base_prefix, open('/proc/self/maps').read())"
    tried = subprocess.run(
        [there / "python/bin" / version, "-I", "-c", loads], capture_output=True, text=True, check=False
    )
    if tried.returncode or f"{base}/" in tried.stdout or not tried.stdout.startswith(f"{there}/python "):
        raise InstallError(
            f"the Python of this environment, {base}, can't be moved into a package: {tried.stderr.strip()}\n"
            "`make deb BUNDLE=1` fetches one that can be moved"
        )
    return library / "python/bin" / version


def is_managed() -> bool:
    """Whether the current Python was fetched by `make`, because the machine's own is too old."""
    return Path(sys.base_prefix).is_relative_to(ROOT / ".cache" / "python")


def make_environment(there: Path, library: Path, python: Path, others: Sequence[str] = ()) -> list[str]:
    """Create an environment in ``there`` that ``python`` will run at ``library``.

    Returns the supported versions of Python, oldest first: the current one, and its neighbours among
    ``others`` for which every compiled library is available.
    """
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory(prefix="service-manager-") as temporary:
        site = Path(temporary) / "site"
        target = ("install", "--no-compile", "--no-deps", "--target", site)
        pip(*target, "--require-hashes", "-r", LOCK)
        pip(*target, _wheel(Path(temporary)))
        shutil.rmtree(site / "bin", ignore_errors=True)
        good = [own]
        for direction in (1, -1):
            for version in _neighbours(own, others, direction):
                if not _compiled_for(version, site, Path(temporary) / version):
                    break
                good.insert(len(good) if direction == 1 else 0, version)
        (there / "bin").mkdir(parents=True, exist_ok=True)
        shutil.copytree(site, there / "lib" / f"python{own}" / "site-packages")
    for version in good:
        if version != own:
            (there / "lib" / f"python{version}").symlink_to(f"python{own}")
    (there / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    (there / "bin/python3").symlink_to(python)
    launcher = there / "bin" / NAME
    launcher.write_text(_LAUNCHER.format(python=library / "bin/python3"))
    launcher.chmod(0o755)
    return good


def add_compose(there: Path, machine: str, *, package: bool) -> None:
    """Add Docker Compose for this architecture to an environment.

    A package is built without it only if no release exists for the architecture. An installation may use the
    machine's own.

    Raises:
        InstallError: it can't be fetched and is needed.
    """
    known = architecture(machine)
    here = [program_path(Path(sys.prefix)), *programs_on(os.environ)]
    try:
        provide(program_path(there), known, here=here)
    except FetchError as problem:
        why = f"Docker Compose can't be fetched: {problem}"
    else:
        return
    if package:
        if known:
            raise InstallError(
                f"{why}.\nThe package must contain it: {download(known, machine)}; then run this again"
            )
        print(f"{why}.\nThe package is built without it.")
        return
    try:
        print(f"{why}.\nThis machine's own is used: {find_compose()}.")
    except StepFailed:
        raise InstallError(f"{why}.\nTo continue: {remedy(this_host())}; then run this again") from None


def compile_all(python: Path | str, library: Path, destdir: str = "") -> None:
    """Compile every module before the first start.

    The service can't write to its code's folder, so it would compile at each start, which costs seconds and
    7 MB of memory. The compiled files are not compared with their sources, whose times packing may change.
    """
    at = ("-s", destdir, "-p", "/") if destdir else ()
    run(python, "-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", *at, library)


def _neighbours(own: str, others: Sequence[str], direction: int) -> list[str]:
    """Return the versions above (1) or below (-1) ``own``, nearest first."""
    major, minor = map(int, own.split("."))
    return [v for n in range(1, 10) if (v := f"{major}.{minor + n * direction}") in others]


def _wheel(temporary: Path) -> Path:
    # From a copy: a build leaves folders behind and includes those of earlier builds.
    source = temporary / "source"
    source.mkdir()
    for part in _PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.log"))
        else:
            shutil.copy2(ROOT / part, source / part)
    # With the locked setuptools of the current environment.
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", temporary, source)
    return next(temporary.glob("*.whl"))


def _compiled_for(version: str, site: Path, temporary: Path) -> bool:
    """Add the compiled libraries for another version; False if one is not available."""
    wanted = temporary.with_suffix(".lock")
    wanted.write_text("".join(locked(LOCK.read_text(), _compiled(site))))
    binary = ("--python-version", version, "--only-binary", ":all:")
    try:
        pip(
            *("install", "--no-compile", "--no-deps", "--target", temporary, *binary),
            *("--require-hashes", "-r", wanted),
        )
    except InstallError:
        print(f"Not for Python {version}: not all compiled libraries are available for it.")
        return False
    for file in temporary.rglob("*.so"):
        shutil.copy2(file, site / file.relative_to(temporary))
    return True


def _compiled(site: Path) -> list[str]:
    """Return ``name==version``, as in the lock, of each package compiled for one version of Python."""
    found = []
    for info in sorted(site.glob("*.dist-info")):
        if re.search(r"\.cpython-\d+\S*\.so,", (info / "RECORD").read_text()):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            found.append(f"{re.sub('[-_.]+', '-', name).lower()}=={version}")
    return found


def locked(lock: str, packages: Sequence[str]) -> list[str]:
    """Return the entries of a lock file for some packages (`name==version`), each with its hashes."""
    entries = re.findall(r"^(\S+==\S+)(.*(?:\n[ \t].*)*)", lock, re.MULTILINE)
    return [f"{package}{rest}\n" for package, rest in entries if package in packages]


# --- on this machine, or into DESTDIR ----------------------------------------------------------------------


def install(destdir: str, prefix: Path) -> None:
    """Install or upgrade; an upgrade keeps configuration, desired state and audit log."""
    tree, paths = Tree(destdir), Paths(prefix)
    library = tree.at(paths.library)
    first = not library.exists()
    new = library.with_name(f".{library.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    python = bundle_python(new, paths.library) if is_managed() else _interpreter()
    make_environment(new, paths.library, python)
    add_compose(new, platform.machine(), package=False)
    _swap(library, new)
    compile_all(sys.executable, library, destdir)
    paths.write(tree)
    env = HERE / "service-manager.env"
    tree.write(paths.example, env.read_text())
    tree.write(paths.drop_in_example, (HERE / DROP_IN.name).read_text())
    if not tree.at(ETC / env.name).exists():
        tree.write(ETC / env.name, env.read_text(), 0o640)
    if destdir:
        _copy_desired_state(tree.at(ETC / "desired-state"))
        return
    run(library / "settle", "first" if first else "again")
    if _systemd_runs():
        run("systemctl", "daemon-reload")
        run("systemctl", "try-restart", "service-manager.service")
    print(_installed(first))


def uninstall(destdir: str, prefix: Path) -> None:
    """Uninstall; containers, configuration, desired state and audit log stay."""
    tree, paths = Tree(destdir), Paths(prefix)
    if not destdir and _systemd_runs() and paths.unit.exists():
        run("systemctl", "disable", "--now", "service-manager.service")
    for path in (
        *(paths.unit, paths.sysusers, paths.tmpfiles, paths.program),
        *(paths.example, paths.drop_in_example),
    ):
        tree.at(path).unlink(missing_ok=True)
    _remove_drop_in(tree.at(DROP_IN))
    shutil.rmtree(tree.at(paths.library), ignore_errors=True)
    if tree.at(paths.example.parent).is_dir() and not any(tree.at(paths.example.parent).iterdir()):
        tree.at(paths.example.parent).rmdir()
    if not destdir and _systemd_runs():
        run("systemctl", "daemon-reload")
    print(
        f"The containers keep running. {ETC} and /var/lib/service-manager are kept; to remove them too:\n"
        f"  sudo rm -r {ETC} /var/lib/service-manager && sudo userdel service-manager"
    )


def _remove_drop_in(there: Path) -> None:
    """Remove the drop-in that `settle` wrote; one that was edited stays."""
    if there.is_file() and there.read_text() == (HERE / DROP_IN.name).read_text():
        there.unlink()
        if not any(there.parent.iterdir()):
            there.parent.rmdir()


def _interpreter() -> Path:
    """Return the Python of the current environment, or one of the same version that every user can run."""
    own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (own, Path("/usr/bin") / same, Path("/usr/local/bin") / same):
        found = python.resolve()
        if found.exists() and all(parent.stat().st_mode & 0o001 for parent in found.parents):
            return found
    raise InstallError(
        f"the user of the service can't run {own}, since a folder above it is closed to other users; "
        "choose another: make install PYTHON=/usr/bin/python3 VENV=.venv-install"
    )


def _swap(library: Path, new: Path) -> None:
    # Two renames, so that the running daemon lacks its files only for a moment.
    old = library.with_name(f".{library.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if library.exists():
        library.rename(old)
    new.rename(library)
    shutil.rmtree(old, ignore_errors=True)


def _copy_desired_state(there: Path) -> None:
    # A packager sets the owner; without DESTDIR `settle` does.
    if not there.exists():
        ignored = shutil.ignore_patterns("__pycache__", "*.log")
        shutil.copytree(ROOT / "desired-state", there, ignore=ignored)


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _installed(first: bool) -> str:
    if not first:
        return "Upgraded. A running daemon was restarted; the containers were not."
    return textwrap.dedent(f"""\
        Installed. The desired state is {ETC}/desired-state, options are in {ETC}/service-manager.env.
        To start it now and at every boot:
          sudo systemctl enable --now service-manager""")


# --- a Debian package --------------------------------------------------------------------------------------


def deb(out: Path, version: str, *, bundle: bool) -> Path:
    """Build the package for this architecture, for several versions of Python or with its own."""
    if not shutil.which("dpkg-deb"):
        raise InstallError("dpkg-deb builds the Debian package: sudo apt-get install dpkg")
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="service-manager-deb-") as temporary:
        root = Path(temporary) / "root"
        tree, paths = Tree(str(root)), Paths(Path("/usr"))
        library, python = tree.at(paths.library), Path("/usr/bin/python3")
        if bundle:
            library.mkdir(parents=True)
            python = bundle_python(library, paths.library)
        versions = make_environment(library, paths.library, python, () if bundle else PYTHONS)
        if bundle:
            version += f"+python{versions[0]}"
        add_compose(tree.at(paths.library), architecture, package=True)
        compile_all(sys.executable, tree.at(paths.library), str(root))
        paths.write(tree)
        tree.write(ETC / "service-manager.env", (HERE / "service-manager.env").read_text(), 0o640)
        documents = Path("/usr/share/doc/alpr-service-manager")
        tree.write(documents / DROP_IN.name, (HERE / DROP_IN.name).read_text())
        tree.write(documents / "copyright", (HERE / "debian/copyright").read_text())
        tree.write(documents / "CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text())
        _write_control(root, version, architecture, () if bundle else versions)
        root.chmod(0o755)
        package = out / f"alpr-service-manager_{version}_{architecture}.deb"
        # zstd takes seconds, xz a minute. Debian reads zstd since 12, Ubuntu since 18.04.
        run("dpkg-deb", "--root-owner-group", "-Zzstd", "--build", root, package)
    return package


def _write_control(root: Path, version: str, architecture: str, versions: Sequence[str]) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    shipped = next(
        root.glob("usr/lib/service-manager/lib/python3*/site-packages/reconciler/shipped_desired_state")
    )
    values = {
        "VERSION": version,
        "ARCHITECTURE": architecture,
        "SIZE": str(sum(path.stat().st_size for path in files) // 1024),
        "PYTHON": _depends(versions),
        "SHIPPED": "\n\t\t\t".join(
            sorted(str(path.relative_to(shipped)) for path in shipped.rglob("*") if path.is_file())
        ),
    }
    for source in (HERE / "debian").iterdir():
        if source.name != "copyright":
            text = re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], source.read_text())
            Tree(str(root)).write(
                Path("/DEBIAN") / source.name, text, 0o644 if source.name == "control" else 0o755
            )
    sums = "".join(
        f"{md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"  # noqa: S324 - dpkg's own format
        for path in files
    )
    Tree(str(root)).write(Path("/DEBIAN/md5sums"), sums)
    Tree(str(root)).write(Path("/DEBIAN/conffiles"), f"{ETC}/service-manager.env\n")


def _depends(versions: Sequence[str]) -> str:
    """Return the dependency on the machine's Python; empty if the package has its own."""
    if not versions:
        return ""
    major, minor = versions[-1].split(".")
    return f"python3 (>= {versions[0]}), python3 (<< {major}.{int(minor) + 1}), "


def main() -> int:
    """Run the command line that the Makefile uses; return the exit code."""
    parser = argparse.ArgumentParser(prog="systemd/install.py", description=__doc__)
    parts = parser.add_subparsers(required=True, dest="part")
    for name in ("install", "uninstall"):
        part = parts.add_parser(name)
        part.add_argument("--destdir", default="")
        part.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    part = parts.add_parser("deb")
    part.add_argument("--out", type=Path, default=ROOT / "dist")
    part.add_argument("--version", default="")
    part.add_argument("--bundle", action="store_true", help="include the current Python in the package")
    arguments = parser.parse_args()
    os.umask(0o022)
    try:
        if arguments.part == "deb":
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
            version, bundle = arguments.version or known, arguments.bundle or is_managed()
            print(deb(arguments.out.absolute(), version, bundle=bundle))
        else:
            do = install if arguments.part == "install" else uninstall
            do(arguments.destdir and str(Path(arguments.destdir).absolute()), arguments.prefix)
    except (InstallError, PermissionError) as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
