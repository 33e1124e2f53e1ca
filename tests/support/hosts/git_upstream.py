"""The upstream repository of a host in pull mode, and Ann, who pushes to it."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.hosts.git_host import FILES, WEB_ON, GitHost, GitUser, until

SECRET = "a secret that is long enough"


class Upstream:
    """A bare repository; ``ann`` has a clone of it."""

    def __init__(self, host: GitHost) -> None:
        self.bare = host.folder / "upstream.git"
        self._hidden = host.folder / "hidden.git"
        GitUser("x", host.folder, host.environ).git("init", "-q", "--bare", str(self.bare))
        self.ann = host.clone("ann", str(self.bare))
        self.ann.git("checkout", "-q", "-B", "main")
        self.publish("first", FILES)

    def publish(self, message: str, files: Mapping[str, str]) -> str:
        """Let Ann commit and push files; return the commit."""
        commit = self.ann.save(message, files)
        done = self.ann.push("origin", "main")
        assert done.returncode == 0, done.output
        return commit

    def rewind(self, to: str = "HEAD~1") -> str:
        """Move the branch back, as a forced push of Ann; return its head."""
        self.ann.git("fetch", "-q")
        self.ann.git("reset", "-q", "--hard", to)
        return self.force()

    def force(self) -> str:
        """Replace the branch by that of Ann's clone; return its head."""
        done = self.ann.push("--force", "origin", "main")
        assert done.returncode == 0, done.output
        return self.head()

    def hide(self) -> None:
        """Make the repository unreachable for the host; Ann can still push to it."""
        self._move(self.bare, self._hidden)

    def unhide(self) -> None:
        """Make the repository reachable again."""
        self._move(self._hidden, self.bare)

    def _move(self, old: Path, new: Path) -> None:
        old.rename(new)
        self.ann.git("remote", "set-url", "origin", str(new))

    def head(self) -> str:
        return self.ann.git("ls-remote", "origin", "main").split()[0]

    def read_file(self, name: str) -> str:
        self.ann.git("fetch", "-q")
        return self.ann.git("show", f"origin/main:{name}") + "\n"


def wait_until_synced(host: GitHost, upstream: Upstream, commits: int) -> None:
    """Wait until the host has ``commits`` commits and upstream has the same head."""
    until(lambda: len(host.log()) == commits)
    until(lambda: upstream.head() == host.head())


def configure_pull(host: GitHost, **options: str) -> None:
    host.daemon.environ |= {f"SERVICE_MANAGER_GIT_{name.upper()}": value for name, value in options.items()}


def fetch_now(host: GitHost) -> None:
    """Make the host fetch, by the webhook."""
    assert post_webhook(host, b"{}", {"X-Hub-Signature-256": f"sha256={signature(b'{}')}"}) == 202


def deploy_mistake(host: GitHost, upstream: Upstream) -> str:
    """Publish a commit and wait until the host has deployed it; return the commit."""
    commit = upstream.publish("a mistake", {"groups.yaml": WEB_ON})
    fetch_now(host)
    host.daemon.converged(2)
    return commit


def write_unpushed(host: GitHost, upstream: Upstream) -> None:
    """Hide upstream and start a group, so that the host has a commit that it can't push."""
    upstream.hide()
    host.daemon.post("/services/start/extra")
    until(lambda: host.log()[0][1] == "Start extra")


def post_webhook(host: GitHost, body: bytes, headers: Mapping[str, str]) -> int:
    port = int(host.daemon.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/services/hooks/git", body, dict(headers))
    status = connection.getresponse().status
    connection.close()
    return status


def signature(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def sign_commits(upstream: Upstream) -> Path:
    """Make Ann sign her commits; return the file of keys for --git-verify."""
    key = upstream.bare.parent / "signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = upstream.bare.parent / "signers"
    signers.write_text(f"ann@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in (("gpg.format", "ssh"), ("user.signingKey", str(key)), ("commit.gpgSign", "true")):
        upstream.ann.git("config", name, value)
    return signers
