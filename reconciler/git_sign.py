"""Whether a commit is signed by somebody whose key is known."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from reconciler.git import Git, GitError, said

_PGP = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


def verify(git: Git, commit: str, keys: Path) -> None:
    """Check the signature of a commit against ``keys``: SSH allowed signers, or PGP public keys in armour.

    Raises:
        GitError: it is not signed, or not by one of them; or the keys or the programs are not to be had.
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
            # A copy, since the owner of the checkout need not be able to read the original.
            signers = Path(folder) / "signers"
            signers.write_bytes(known)
            signers.chmod(0o644)
            done = git.run("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", commit)
    if done.returncode:
        told = said(done.stderr)
        raise GitError(
            f"commit {commit[:10]} is not signed with a key of {keys}" + (f" ({told})" if told else ""),
            "sign it, or add the key; the last good state is kept",
        )


def _import(known: bytes, folder: str) -> None:
    try:
        command = ["gpg", "--batch", "--quiet", "--homedir", folder, "--import"]
        done = subprocess.run(command, input=known, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        raise GitError("PGP signatures need gpg", "install it: `apt install gnupg`") from None
    except subprocess.TimeoutExpired:
        raise GitError("gpg did not end within 30 s") from None
    if done.returncode:
        raise GitError(f"the keys of --git-verify are of no use: {said(done.stderr)}")
