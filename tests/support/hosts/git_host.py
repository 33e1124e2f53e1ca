"""A host whose desired state is a git work tree, and users who push to it from their clones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.fixtures.wait import until
from tests.support.harness.daemon import ROOT, Daemon

STACK = """\
name: small
compose: [compose.yaml]
groups:
  base:
    services: [db]
  web:
    services: [app]
    depends_on: {base: on}
  extra:
    services: [cache]
"""
GROUPS = """\
groups:
  base: on      # a comment that stays

  # what people see
  web: off

  # now and then
  extra: off
"""
WEB_ON = GROUPS.replace("web: off", "web: on")
COMPOSE = """\
name: small
services:
  db:
    image: db:1
    environment: {PASSWORD: "${DB_PASSWORD:?is not set}"}
    volumes: ["./config/db.conf:/etc/db.conf:ro"]
  app: {image: "app:1", depends_on: [db]}
  cache: {image: "cache:1"}
"""
FILES = {
    "stack.yaml": STACK,
    "groups.yaml": GROUPS,
    "compose.yaml": COMPOSE,
    "config/db.conf": "one\n",
    ".gitignore": ".env\n",
}


__all__ = [
    "COMPOSE",
    "FILES",
    "GROUPS",
    "STACK",
    "WEB_ON",
    "GitHost",
    "GitResult",
    "GitUser",
    "refused",
    "until",
    "write",
]


def write(directory: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)


class GitResult(subprocess.CompletedProcess[str]):
    """A finished command; ``output`` is what it printed."""

    @property
    def output(self) -> str:
        return f"{self.stdout}{self.stderr}"


class GitUser:
    """A git user in a clone or on the host."""

    def __init__(self, name: str, directory: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.directory = directory
        self.environ = dict(environ) | {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": f"{name}@example.org",
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": f"{name}@example.org",
        }

    def try_git(self, *arguments: str, within: float = 60.0) -> GitResult:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        return GitResult(done.args, done.returncode, done.stdout, done.stderr)

    def git(self, *arguments: str) -> str:
        done = self.try_git(*arguments)
        assert done.returncode == 0, (arguments, done.output)
        return done.stdout.strip()

    def save(self, message: str, files: Mapping[str, str]) -> str:
        """Write files and commit them; return the commit."""
        write(self.directory, files)
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *arguments: str) -> GitResult:
        return self.try_git("push", *(arguments or ("origin", "HEAD")))


class GitHost:
    """The host of a daemon. ``me`` is its administrator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.desired = folder / "stack"
        home = folder / "home"
        home.mkdir(parents=True)
        (home / ".gitconfig").write_text("[init]\n\tdefaultBranch = main\n")
        passed = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        self.environ = passed | {"HOME": str(home), "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1"}
        self.daemon = Daemon(
            self.desired, folder / "state", self.environ | {"SERVICE_MANAGER_ENGINE": "simulated"}
        )
        self.me = GitUser("root", self.desired, self.environ)

    def fill(self, files: Mapping[str, str] = FILES) -> None:
        self.desired.mkdir(exist_ok=True)
        write(self.desired, files)
        write(self.desired, {".env": "DB_PASSWORD=secret\n"})

    def cli(self, *words: str, cwd: Path | None = None) -> GitResult:
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *words],
            cwd=cwd or ROOT,
            env=self.environ | {"SERVICE_MANAGER_STATE_DIR": str(self.daemon.state), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return GitResult(done.args, done.returncode, done.stdout, done.stderr)

    def init(self) -> None:
        """Set up the work tree as in the user guide."""
        self.fill()
        done = self.cli("git", "init", str(self.desired))
        assert done.returncode == 0, done.output

    def up(self) -> None:
        """Start the daemon and wait for its first desired state."""
        self.daemon.start()
        self.daemon.until(lambda s: s["generation"] and s["progress"]["state"] != "progressing")

    def clone(self, name: str, url: str = "") -> GitUser:
        place = self.folder / f"clone-{name}"
        user = GitUser(name, self.folder, self.environ)
        user.git("clone", "-q", url or str(self.desired), str(place))
        return GitUser(name, place, self.environ)

    # --- state ---

    def log(self) -> list[tuple[str, str]]:
        """Return (author, subject) of every commit, newest first."""
        lines = self.me.git("log", "--format=%an%x00%s").splitlines()
        return [(line.split("\0")[0], line.split("\0")[1]) for line in lines]

    def head(self) -> str:
        return self.me.git("rev-parse", "HEAD")

    def clean(self) -> bool:
        # Called in a loop: with the lock it would block other commands most of the time.
        return not self.me.git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")

    def groups(self) -> str:
        return (self.desired / "groups.yaml").read_text()


def refused(host: GitHost, user: GitUser, *arguments: str) -> str:
    """Push, expect a refusal and no change; return the output."""
    head, files = host.head(), {p: p.read_bytes() for p in host.desired.glob("*") if p.is_file()}
    objects = len(list((host.desired / ".git/objects").rglob("*")))
    generation = host.daemon.get("/services/status")["generation"]
    done = user.push(*arguments)
    assert done.returncode != 0, done.output
    assert host.head() == head
    assert {p: p.read_bytes() for p in host.desired.glob("*") if p.is_file()} == files
    assert len(list((host.desired / ".git/objects").rglob("*"))) == objects
    assert host.clean()
    assert host.daemon.get("/services/status")["generation"] == generation
    return "\n".join(line.removeprefix("remote:").rstrip() for line in done.output.splitlines())
