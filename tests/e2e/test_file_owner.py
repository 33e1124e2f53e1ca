"""Files that root creates for the service; `make e2e` runs as root."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.fixtures.stub_server import run_cli


def test_files_that_root_creates_belong_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    assert run_cli("key", "add", "ann", "--state-dir", str(tmp_path)).code == 0
    for path in tmp_path.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346), path.name
