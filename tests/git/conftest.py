"""A host for each test; an upstream repository for tests of pull mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts.git_host import GitHost, GitUser, write
from tests.support.hosts.git_upstream import SECRET, Upstream, configure_pull


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHost]:
    """A host without files; its daemon is not started."""
    host = GitHost(tmp_path)
    yield host
    host.daemon.kill()


@pytest.fixture
def upstream(host: GitHost) -> Upstream:
    """An upstream repository that ``host`` will pull from, every 0.3 s and on a webhook."""
    upstream = Upstream(host)
    (host.folder / "hook-secret").write_text(SECRET + "\n")
    configure_pull(
        host, url=str(upstream.bare), interval="0.3", webhook_secret=str(host.folder / "hook-secret")
    )
    host.desired.mkdir()
    write(host.desired, {".env": "DB_PASSWORD=secret\n"})
    return upstream


@pytest.fixture
def pull_host(host: GitHost, upstream: Upstream) -> GitHost:
    """A host whose daemon pulls from ``upstream``."""
    host.up()
    return host


@pytest.fixture
def push_host(host: GitHost) -> GitHost:
    """A host whose work tree accepts pushes."""
    host.init()
    host.up()
    return host


@pytest.fixture
def ann(push_host: GitHost) -> GitUser:
    """Ann, in her clone of ``push_host``."""
    return push_host.clone("ann")
