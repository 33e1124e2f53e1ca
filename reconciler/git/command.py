"""Runs git in one work tree, as the owner of the checkout, in a fixed environment, without hooks.

git never searches for a repository: only a folder that is itself the top of a work tree has one, and a clone
further up is ignored. Commands that only read take no lock that a user's own git would wait for.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.errors import ServiceManagerError

DEADLINE = 30.0
"""Seconds for a git command without network; a cold disk may need some."""

PATIENCE = 0.5
"""Seconds to wait for another git to release the index: a shell prompt that shows the status takes it for a
few milliseconds, again and again. After that the error is reported and the command retried later."""

_INHERITED = ("PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GNUPGHOME")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_QUARANTINE = ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")
"""Variables by which git passes the objects of a push to its hook."""

_FIXED = (
    # Hooks and monitors are programs in, or named by, files that other people may have written.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.quotePath", "false"),
    ("advice.detachedHead", "false"),
)
_LOCKED = re.compile(rb"index\.lock\S* File exists")
_BETWEEN = 0.005
_LONGEST = 2000
_USERINFO = re.compile(r"://[^\s']*@")
"""User and password of a URL, up to the last @: a password may hold a slash, as in `ssh://u:a/b@host`."""


class GitError(ServiceManagerError):
    """git failed; the message is git's own. ``remedy`` says what to do, if known."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Git:
    """git in the work tree whose top is ``top``; ``directory`` is its repository."""

    top: Path
    directory: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def owner(self) -> int | None:
        """The user id that git runs as; None: the daemon's. The owner could not change files of root."""
        owner = self.top.stat().st_uid
        return owner if os.geteuid() == 0 and owner != 0 else None

    def __call__(
        self,
        *arguments: str,
        given: bytes = b"",
        index: Path | None = None,
        more: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
    ) -> bytes:
        """Run git and return its standard output. ``index``: another index; ``more``: further variables.

        Raises:
            GitError: git failed, took longer than ``timeout`` seconds, or is not installed.
        """
        return _output(
            arguments[0], self.run(*arguments, given=given, index=index, more=more, timeout=timeout)
        )

    def run_with_lock_retry(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run a command that locks the index; retry for ``PATIENCE`` seconds while it is locked.

        git itself gives up at once. Blocks for as long.
        """
        for more in retry_until_unlocked():
            done = self.run(*arguments, given=given)
            if not (more and done.returncode and _LOCKED.search(done.stderr)):
                break
        return _output(arguments[0], done)

    def run_line(self, *arguments: str) -> str:
        """Return the output of a command that prints one line; raises as a call."""
        return self(*arguments).decode(errors="replace").strip()

    def run(
        self,
        *arguments: str,
        given: bytes = b"",
        index: Path | None = None,
        more: Mapping[str, str] | None = None,
        timeout: float = DEADLINE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git; unlike a call, a non-zero exit code does not raise."""
        fixed = [part for key, value in _FIXED for part in ("-c", f"{key}={value}")]
        environ = self._environ() | dict(more or {})
        if index is not None:
            environ["GIT_INDEX_FILE"] = str(index)
        owner = self.owner
        account = _account(owner) if owner is not None else None
        if account:
            environ |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        try:
            return subprocess.run(
                ["git", *fixed, *arguments],
                cwd=self.top,
                env=environ,
                input=given,
                capture_output=True,
                timeout=timeout,
                check=False,
                user=owner,
                group=self.top.stat().st_gid if owner is not None else None,
                extra_groups=_groups(account) if account else None,
                umask=-1,
            )
        except subprocess.TimeoutExpired:
            raise GitError(f"git {arguments[0]} did not end within {timeout:g} s") from None
        except FileNotFoundError as error:
            if error.filename not in {"git", None}:
                raise GitError(f"{error.filename} does not exist any more") from None
            raise GitError("git is not installed", "install it: `apt install git`") from None
        except OSError as error:
            raise GitError(f"git can't be run: {error.strerror}") from error

    def _environ(self) -> dict[str, str]:
        names = (*_INHERITED, *_PROXIES, *_QUARANTINE)
        kept = {name: self.environ[name] for name in names if name in self.environ}
        return kept | {
            "GIT_DIR": str(self.directory),
            "GIT_WORK_TREE": str(self.top),
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            # A pushed refs/replace/ID would otherwise end every command ("replace depth too high").
            "GIT_NO_REPLACE_OBJECTS": "1",
            "LC_ALL": "C.UTF-8",
        }


def open_work_tree(directory: Path, environ: Mapping[str, str] | None = None) -> Git | None:
    """Return git for a directory; None unless it is itself the top of a work tree."""
    found = git_dir(directory)
    if found is None:
        return None
    return Git(directory.resolve(), found, dict(os.environ if environ is None else environ))


def git_dir(directory: Path) -> Path | None:
    """Return the repository of the work tree with the top ``directory``; None if it is not a top."""
    try:
        entry = directory.resolve() / ".git"
        if entry.is_dir():
            return entry if (entry / "HEAD").exists() else None
        text = entry.read_text().strip() if entry.is_file() else ""
    except (OSError, ValueError, RuntimeError):
        return None
    if not text.startswith("gitdir:"):
        return None
    return (entry.parent / text.removeprefix("gitdir:").strip()).resolve()


def retry_until_unlocked() -> Iterator[bool]:
    """Pace retries while another git runs: yield True until ``PATIENCE`` is over, then False once."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        yield True
        time.sleep(_BETWEEN)
    yield False


def _output(command: str, done: subprocess.CompletedProcess[bytes]) -> bytes:
    if done.returncode:
        raise GitError(stderr_message(done.stderr) or f"git {command} ended with {done.returncode}")
    return done.stdout


def _account(user: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user)
    except KeyError:
        return None


def _groups(account: pwd.struct_passwd) -> list[int]:
    return os.getgrouplist(account.pw_name, account.pw_gid)


def stderr_message(stderr: bytes) -> str:
    """Return git's error output in one line, without passwords in addresses."""
    lines = [line.strip() for line in stderr.decode(errors="replace").replace("\r", "\n").split("\n")]
    shown = [line for line in lines if line and not line.startswith("hint:")]
    return _USERINFO.sub("://", "; ".join(shown))[:_LONGEST]
