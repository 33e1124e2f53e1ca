"""A host whose desired state is a git work tree, and people who push to it from their clones."""

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
    """A finished command; ``said`` is its output."""

    @property
    def said(self) -> str:
        return f"{self.stdout}{self.stderr}"


class GitUser:
    """A person with a name, in a clone or on the host."""

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
        assert done.returncode == 0, (arguments, done.said)
        return done.stdout.strip()

    def save(self, message: str, files: Mapping[str, str]) -> str:
        """Edit and commit; returns the commit."""
        write(self.directory, files)
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *arguments: str) -> GitResult:
        return self.try_git("push", *(arguments or ("origin", "HEAD")))


class GitHost:
    """The host with the daemon. ``me`` works on it by hand."""

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
        """Set it up as the guide describes."""
        self.fill()
        done = self.cli("git", "init", str(self.desired))
        assert done.returncode == 0, done.said

    def up(self) -> None:
        """Start the daemon and wait for its first desired state."""
        self.daemon.start()
        self.daemon.until(lambda s: s["generation"] and s["progress"]["state"] != "progressing")

    def clone(self, name: str, url: str = "") -> GitUser:
        place = self.folder / f"clone-{name}"
        person = GitUser(name, self.folder, self.environ)
        person.git("clone", "-q", url or str(self.desired), str(place))
        return GitUser(name, place, self.environ)

    # --- state ---

    def log(self) -> list[tuple[str, str]]:
        """(author, subject) of every commit, the newest first."""
        told = self.me.git("log", "--format=%an%x00%s")
        return [(line.split("\0")[0], line.split("\0")[1]) for line in told.splitlines()]

    def head(self) -> str:
        return self.me.git("rev-parse", "HEAD")

    def clean(self) -> bool:
        # Polled, so without the lock, which would be held most of the time.
        return not self.me.git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")

    def groups(self) -> str:
        return (self.desired / "groups.yaml").read_text()


def refused(box: GitHost, person: GitUser, *arguments: str) -> str:
    """Push, expect a refusal and no change; returns the output."""
    head, files = box.head(), {p: p.read_bytes() for p in box.desired.glob("*") if p.is_file()}
    objects = len(list((box.desired / ".git/objects").rglob("*")))
    generation = box.daemon.get("/services/status")["generation"]
    done = person.push(*arguments)
    assert done.returncode != 0, done.said
    assert box.head() == head
    assert {p: p.read_bytes() for p in box.desired.glob("*") if p.is_file()} == files
    assert len(list((box.desired / ".git/objects").rglob("*"))) == objects
    assert box.clean()
    assert box.daemon.get("/services/status")["generation"] == generation
    return "\n".join(line.removeprefix("remote:").rstrip() for line in done.said.splitlines())
