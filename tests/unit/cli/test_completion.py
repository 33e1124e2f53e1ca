"""Completion scripts, and the names of groups that they ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.commands.definitions.table import COMMANDS
from reconciler.cli.completion import bash, fish, zsh
from tests.support.fixtures.stub_server import a_daemon, known, run_cli

STACK = "name: x\ncompose: [c.yaml]\ngroups:\n  kafka: {services: [a]}\n  'on': {services: [b]}\n"


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    program = tmp_path / "service-manager"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m reconciler "$@"\n')
    program.chmod(0o755)
    (tmp_path / "desired-state").mkdir(exist_ok=True)
    (tmp_path / "desired-state/stack.yaml").write_text(STACK)
    line = " ".join(f"'{word}'" for word in words)
    script = (
        # compopt works inside a real completion only.
        f"{bash()}\ncompopt() {{ :; }}\nCOMP_WORDS=(service-manager {line})\nCOMP_CWORD={len(words)}\n"
        '_service_manager\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path.cwd()),
        "SERVICE_MANAGER_URL": "http://127.0.0.1:1",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands(tmp_path: Path) -> None:
    assert completed(tmp_path, "st") == ["status", "start", "stop"]
    assert len(completed(tmp_path, "")) == len(COMMANDS)


def test_bash_completes_options_and_their_values(tmp_path: Path) -> None:
    assert completed(tmp_path, "start", "--with") == ["--with-dependencies"]
    assert completed(tmp_path, "plan", "--output", "") == ["text", "json"]
    assert completed(tmp_path, "run", "--engine", "s") == ["simulated"]
    assert completed(tmp_path, "completion", "") == ["bash", "zsh", "fish"]
    assert completed(tmp_path, "status", "--timeout", "") == ["kafka", "on"]
    assert completed(tmp_path, "start", "--timeout", "") == []


def test_bash_completes_groups_and_folders(tmp_path: Path) -> None:
    assert completed(tmp_path, "start", "") == ["kafka", "on"]
    assert completed(tmp_path, "start", "kafka", "k") == ["kafka"]
    assert completed(tmp_path, "validate", "desi") == ["desired-state"]


def test_groups_come_from_the_daemon_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "desired-state").mkdir()
    (tmp_path / "desired-state/stack.yaml").write_text(STACK)
    monkeypatch.chdir(tmp_path)
    with a_daemon() as daemon:
        daemon.get("/services/groups", known("a", "b", "no blanks"))
        monkeypatch.setenv("SERVICE_MANAGER_URL", daemon.url)
        assert run_cli("completion", "groups").out == "a\nb\n"
    assert run_cli("completion", "groups").out == "kafka\non\n"
    monkeypatch.setenv("SERVICE_MANAGER_DESIRED_STATE", "/nowhere")
    assert run_cli("completion", "groups") == (0, "", "")


@pytest.mark.parametrize(("shell", "script"), [("bash", bash), ("zsh", zsh), ("fish", fish)])
def test_the_script_names_everything(shell: str, script: object) -> None:
    text = run_cli("completion", shell).out
    assert callable(script)
    assert text == script()
    for command in COMMANDS:
        assert command.name in text
        for option in command.options:
            assert (f"-l {option.flag[2:]} " if shell == "fish" else option.flag) in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_reads_the_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None and not os.environ.get("CI"):
        pytest.skip(f"no {shell} here; `make test` installs it")
    file = tmp_path / "script"
    file.write_text(run_cli("completion", shell).out)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
