"""A box for each test, and a repository elsewhere for those that pull."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git.upstream import SECRET, Upstream, pulling
from tests.support.hosts.git_host import GitHost, GitUser, write


@pytest.fixture
def box(tmp_path: Path) -> Iterator[GitHost]:
    found = GitHost(tmp_path)
    yield found
    found.daemon.kill()


@pytest.fixture
def upstream(box: GitHost) -> Upstream:
    found = Upstream(box)
    (box.folder / "hook-secret").write_text(SECRET + "\n")
    pulling(box, url=str(found.bare), interval="0.3", webhook_secret=str(box.folder / "hook-secret"))
    box.desired.mkdir()
    write(box.desired, {".env": "DB_PASSWORD=secret\n"})
    return found


@pytest.fixture
def pulled(box: GitHost, upstream: Upstream) -> Iterator[GitHost]:
    box.up()
    yield box


@pytest.fixture
def ready(box: GitHost) -> GitHost:
    box.init()
    box.up()
    return box


@pytest.fixture
def ann(ready: GitHost) -> GitUser:
    return ready.clone("ann")
