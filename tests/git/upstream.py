"""A repository elsewhere that a box pulls from, and Ann, who works on it."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.hosts.git_host import FILES, GROUPS, GitHost, GitUser, until

ON = GROUPS.replace("web: off", "web: on")
SECRET = "a secret that is long enough"


class Upstream:
    """A repository elsewhere, and Ann, who works on it."""

    def __init__(self, box: GitHost) -> None:
        self.bare = box.folder / "upstream.git"
        GitUser("x", box.folder, box.environ).git("init", "-q", "--bare", str(self.bare))
        self.ann = box.clone("ann", str(self.bare))
        self.ann.git("checkout", "-q", "-B", "main")
        self.give("first", FILES)

    def give(self, message: str, files: Mapping[str, str]) -> str:
        commit = self.ann.save(message, files)
        done = self.ann.push("origin", "main")
        assert done.returncode == 0, done.said
        return commit

    def head(self) -> str:
        return self.ann.git("ls-remote", "origin", "main").split()[0]

    def show(self, name: str) -> str:
        self.ann.git("fetch", "-q")
        return self.ann.git("show", f"origin/main:{name}") + "\n"


def in_step(box: GitHost, upstream: Upstream, commits: int) -> None:
    """Until the box has so many commits, and the repository elsewhere has them, too."""
    until(lambda: len(box.log()) == commits)
    until(lambda: upstream.head() == box.head())


def pulling(box: GitHost, **options: str) -> None:
    box.daemon.environ |= {f"SERVICE_MANAGER_GIT_{name.upper()}": value for name, value in options.items()}


def deliver(box: GitHost, body: bytes, headers: Mapping[str, str]) -> int:
    port = int(box.daemon.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/services/hooks/git", body, dict(headers))
    status = connection.getresponse().status
    connection.close()
    return status


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signer(upstream: Upstream) -> Path:
    """Ann signs from now on; the file of keys that --git-verify takes."""
    key = upstream.bare.parent / "signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = upstream.bare.parent / "signers"
    signers.write_text(f"ann@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in (("gpg.format", "ssh"), ("user.signingKey", str(key)), ("commit.gpgSign", "true")):
        upstream.ann.git("config", name, value)
    return signers
