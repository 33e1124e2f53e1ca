"""What the command line needs of its host: shells for its completion scripts, root for the owners of files.

`make e2e` installs the shells and runs as root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.fixtures.stub_server import run_cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_parses_its_completion_script(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(run_cli("completion", shell).out)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_root_creates_belong_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    assert run_cli("key", "add", "ann", "--state-dir", str(tmp_path)).code == 0
    for path in tmp_path.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346), path.name
