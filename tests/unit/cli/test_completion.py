"""Completion in real shells, and the names of groups that it offers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.commands.definitions.table import COMMANDS
from reconciler.cli.main import main
from reconciler.cli.options.command import Command
from tests.support.fixtures.stub_server import a_daemon, known, run_cli

STACK = "name: x\ncompose: [c.yaml]\ngroups:\n  kafka: {services: [a]}\n  'on': {services: [b]}\n"


def in_shell(tmp_path: Path, shell: str, script: str) -> str:
    """Run a script after the completion script of a shell; return its output."""
    assert shutil.which(shell), f"{shell} is missing; `make test` installs it"
    program = tmp_path / "service-manager"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m reconciler "$@"\n')
    program.chmod(0o755)
    (tmp_path / "desired-state").mkdir(exist_ok=True)
    (tmp_path / "desired-state/stack.yaml").write_text(STACK)
    (tmp_path / "completion").write_text(run_cli("completion", shell).out)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path.cwd()),
        "SERVICE_MANAGER_URL": "http://127.0.0.1:1",
        "HOME": str(tmp_path),
    }
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *options, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        # compopt works inside a real completion only.
        f"compopt() {{ echo compopt $2; }}\n. ./completion\nCOMP_WORDS=(service-manager {line})\n"
        f"COMP_CWORD={len(words)}\n"
        '_service_manager_completion service-manager\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    return in_shell(tmp_path, "bash", script).split()


def test_bash_completes_commands(tmp_path: Path) -> None:
    assert completed(tmp_path, "st") == ["status", "start", "stop"]
    assert len(completed(tmp_path, "")) == len(COMMANDS)


def test_bash_completes_options_and_their_values(tmp_path: Path) -> None:
    assert completed(tmp_path, "start", "--with") == ["--with-dependencies"]
    assert completed(tmp_path, "plan", "--output", "") == ["text", "json"]
    assert completed(tmp_path, "run", "--engine", "s") == ["simulated"]
    assert completed(tmp_path, "completion", "") == ["bash", "zsh", "fish"]
    assert completed(tmp_path, "git", "") == ["init", "commit", "log"]
    assert completed(tmp_path, "start", "--timeout", "") == []


def test_bash_completes_groups_and_folders(tmp_path: Path) -> None:
    assert completed(tmp_path, "start", "") == ["kafka", "on"]
    assert completed(tmp_path, "start", "kafka", "k") == ["kafka"]
    assert completed(tmp_path, "validate", "desi") == ["compopt", "dirnames"]
    assert completed(tmp_path, "init", "") == ["compopt", "default"]


def test_fish_completes(tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        output = in_shell(tmp_path, "fish", f"source completion; complete -C 'service-manager {line}'")
        return [row.partition("\t")[0] for row in output.splitlines()]

    assert sorted(offered("st")) == ["start", "status", "stop"]
    assert offered("start --with") == ["--with-dependencies"]
    assert offered("start k") == ["kafka"]
    assert "desired-state/" in offered("validate desi")


def test_zsh_completes(tmp_path: Path) -> None:
    def offered(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        script = (
            "compdef() { }\n_describe() { print -rl -- ${completions_with_descriptions%%:*} }\n"
            "compadd() { print -rl -- $completions }\n. ./completion\n"
            f"words=(service-manager {line}) CURRENT={len(words) + 1}\n_service_manager_completion"
        )
        return in_shell(tmp_path, "zsh", script).split()

    assert offered("st") == ["status", "start", "stop"]
    assert offered("start", "--with") == ["--with-dependencies"]
    assert offered("start", "k") == ["kafka"]


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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_shell_offers_every_option(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name, options = command.name, command.options
    monkeypatch.setenv("_SERVICE_MANAGER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"service-manager {name} --")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert main([]) == 0
    offered = capfd.readouterr().out.splitlines()
    assert offered == [f"plain,{flag}" for flag in [*(option.flag for option in options), "--help"]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_accepts_the_syntax_of_its_script(shell: str, tmp_path: Path) -> None:
    assert shutil.which(shell), f"{shell} is missing; `make test` installs it"
    file = tmp_path / "script"
    file.write_text(run_cli("completion", shell).out)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
