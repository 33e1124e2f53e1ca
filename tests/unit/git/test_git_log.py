"""``service-manager git log`` over commits whose subjects hold unusual characters."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.fixtures.stub_server import run_cli


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r"])
def test_log_shows_subjects_with_other_line_separators(tmp_path: Path, mark: str) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path)], check=True)
    identity = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    for subject in ("first", f"a{mark}b"):
        commit = ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", subject]
        subprocess.run(commit, check=True)
    words = ("git", "log", "--desired-state", str(tmp_path), "--state-dir", str(tmp_path / "state"))
    listed = run_cli(*words, "--output", "json")
    assert listed.code == 0, listed.err
    assert [entry["subject"] for entry in json.loads(listed.out)["commits"]] == [f"a{mark}b", "first"]
    assert run_cli(*words).code == 0
