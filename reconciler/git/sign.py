"""Verifies the signature of a commit, and finds out whether this machine can sign."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from reconciler.git.command import Git, GitError, stderr_message
from reconciler.git.commit_objects import EMAIL, NAME, committer

_PGP = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_AUTHOR = {"GIT_AUTHOR_NAME": NAME, "GIT_AUTHOR_EMAIL": EMAIL}


def verify(git: Git, commit: str, keys: Path) -> None:
    """Check the signature of a commit against ``keys``: SSH allowed signers, or PGP public keys in armour.

    Raises:
        GitError: the commit is not signed with one of the keys, or the keys or programs are missing.
    """
    try:
        known = keys.read_bytes()
    except OSError as error:
        raise GitError(f"the keys of --git-verify can't be read: {keys}: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="service-manager-") as folder:
        if git.owner is not None:
            os.chown(folder, git.owner, -1)
        if _PGP in known:
            _import(known, folder)
            done = git.run("verify-commit", commit, more={"GNUPGHOME": folder})
        else:
            # A copy, since the owner of the checkout may not be able to read the original.
            signers = Path(folder) / "signers"
            signers.write_bytes(known)
            signers.chmod(0o644)
            done = git.run("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", commit)
    if done.returncode:
        reason = stderr_message(done.stderr)
        raise GitError(
            f"commit {commit[:10]} is not signed with a key of {keys}" + (f" ({reason})" if reason else ""),
            "sign it, or add the key; the last valid state stays in force",
        )


def why_not_signing(git: Git, keys: Path) -> str:
    """Return why commits made here can't be signed so that ``keys`` accept them; empty: they can be.

    The owner of the work tree configures signing for git: ``commit.gpgSign``, ``user.signingKey``,
    ``gpg.format``. To find out, a commit outside all branches is signed and verified.
    Blocks, up to 30 s.
    """
    if not is_configured(git):
        return "git is not configured to sign (commit.gpgSign)"
    try:
        empty = git("hash-object", "-w", "-t", "tree", "--stdin").decode().strip()
        identity = committer() | _AUTHOR
        made = git("commit-tree", "--gpg-sign", "-m", "Try to sign", empty, more=identity)
        verify(git, made.decode().strip(), keys)
    except GitError as error:
        return str(error)
    return ""


def is_configured(git: Git) -> bool:
    """Whether the owner of the work tree configured signing (``commit.gpgSign``)."""
    done = git.run("config", "--type=bool", "--get", "commit.gpgSign")
    return done.stdout.decode(errors="replace").strip() == "true"


def _import(known: bytes, folder: str) -> None:
    try:
        command = ["gpg", "--batch", "--quiet", "--homedir", folder, "--import"]
        done = subprocess.run(command, input=known, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        raise GitError("PGP signatures need gpg", "install it: `apt install gnupg`") from None
    except subprocess.TimeoutExpired:
        raise GitError("gpg did not end within 30 s") from None
    if done.returncode:
        raise GitError(f"the keys of --git-verify can't be imported: {stderr_message(done.stderr)}")
