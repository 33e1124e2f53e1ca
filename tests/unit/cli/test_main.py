"""The command line itself: parsing, environment, help, suggestions, exit codes."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest

from reconciler import __version__
from reconciler.cli.commands.definitions.table import BY_NAME, COMMANDS
from reconciler.cli.connection import Connection
from reconciler.cli.main import explain
from reconciler.cli.options import option_types
from reconciler.cli.options.command import Command, help_text
from reconciler.options import Address, RunOptions
from tests.support.fixtures.stub_server import run_cli


def parsed(name: str, *words: str, **environ: str) -> dict[str, Any]:
    """The parameters that the handler of a command gets."""
    with mock.patch.dict(os.environ, environ):
        command = BY_NAME[name]
        return command.values(command.make_context(name, list(words)))


def run_options(*words: str, **environ: str) -> RunOptions:
    return RunOptions(**parsed("run", *words, **environ))


def usage_error(name: str, *words: str, **environ: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        parsed(name, *words, **environ)
    return explain(caught.value)[0]


# --- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_description_examples_and_exit_codes(command: Command) -> None:
    assert command.help
    assert command.help.count(". ") + command.help.endswith(".") >= 2
    assert command.examples
    assert ("64" in dict(command.exits)) or command.name == "watch"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_handler_accepts_every_parameter(command: Command) -> None:
    context = command.make_context(str(command.name), needed(command))
    handler = inspect.signature(command.load())
    handler.bind(None, **command.values(context))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@pytest.mark.parametrize("width", [20, 80, 200])
def test_help_fits_and_names_every_variable(command: Command, width: int) -> None:
    text = help_text(command, width)
    for option in command.options:
        assert option.flag in text
        assert f"env var: {option.envvar}]" in " ".join(text.split())
    examples = {f"  service-manager {words}" for words, _ in command.examples}
    lines = [line for line in text.splitlines() if line not in examples and not line.startswith("      ")]
    assert max(map(len, lines)) <= max(width, 100)


def test_every_reading_command_has_json_output() -> None:
    reading = {
        "validate",
        "plan",
        "doctor",
        "status",
        "groups",
        "drift",
        "version",
        "start",
        "stop",
        "restart",
        "accept",
    }
    for name in reading:
        assert parsed(name, *needed(BY_NAME[name]), "--output", "json")["output"] == "json"


def needed(command: Command) -> list[str]:
    """A word for each required argument."""
    return [(argument.words or ("x",))[0] for argument in command.arguments if argument.required]


def test_help_in_every_spelling() -> None:
    whole = run_cli("--help")
    assert (whole.code, whole.err) == (0, "")
    assert whole == run_cli("help") == run_cli("-h") == run_cli("help", "--x")
    one = help_text(BY_NAME["plan"], 100)
    assert run_cli("plan", "--help").out == run_cli("help", "plan").out == one + "\n"
    assert run_cli("start", "--help").code == 0
    assert run_cli("plan", "--unknown", "-h").out == one + "\n"
    assert run_cli("help", "plam").code == 64


def test_missing_command_shows_the_help_as_a_usage_error() -> None:
    ran = run_cli()
    assert (ran.code, ran.out) == (64, "")
    assert ran.err == run_cli("--help").out


def test_version() -> None:
    assert run_cli("version").out == run_cli("--version").out == f"service-manager {__version__}\n"


# --- options and variables ----------------------------------------------------------------------------


def test_run_options_from_flags(tmp_path: Path) -> None:
    words = ["--desired-state", str(tmp_path), "--state-dir", "/s", "--host", "[::1]", "--port", "81"]
    words += ["--metrics-listen", "172.17.0.1:9464", "--compose-file", "/a", "--compose-file", "/b"]
    words += ["--engine", "simulated", "--resync", "2m", "--insecure"]
    words += ["--allowed-host", "Box.example.org.", "--allowed-host", "alpr:8443", "--root-path", "/sm/"]
    words += ["--trusted-proxy", "127.0.0.1", "--trusted-proxy", "fd00::/8"]
    assert run_options(*words) == RunOptions(
        desired_state=tmp_path,
        state_dir=Path("/s"),
        host="::1",
        port=81,
        metrics_listen=Address("172.17.0.1", 9464),
        allowed_host=("box.example.org", "alpr:8443"),
        trusted_proxy=(ip_network("127.0.0.1"), ip_network("fd00::/8")),
        root_path="/sm",
        compose_file=(Path("/a"), Path("/b")),
        engine="simulated",
        resync=120.0,
        insecure=True,
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.example:b.example", ("a.example", "b.example")),
        ("a.example:8443:b.example", ("a.example:8443", "b.example")),
        ("a.example, b.example:443", ("a.example", "b.example:443")),
    ],
)
def test_variables_of_proxies_may_hold_colons(text: str, names: tuple[str, ...]) -> None:
    environ = {"SERVICE_MANAGER_ALLOWED_HOST": text, "SERVICE_MANAGER_TRUSTED_PROXY": "::1 10.0.0.0/8"}
    options = run_options(**environ)
    assert options.allowed_host == names
    assert options.trusted_proxy == (ip_network("::1"), ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--allowed-host", "box.example:0"),
        ("--allowed-host", "https://box.example"),
        ("--trusted-proxy", "box"),
        ("--trusted-proxy", "10.0.0.1/8"),
        ("--root-path", "/a//b"),
        ("--root-path", "/../a"),
        ("--root-path", "/a?b"),
    ],
)
def test_bad_values_for_proxies_are_refused(option: str, text: str) -> None:
    assert option in usage_error("run", option, text)


def test_run_options_from_the_environment() -> None:
    environ = {
        "SERVICE_MANAGER_DESIRED_STATE": "/d",
        "SERVICE_MANAGER_STATE_DIR": "/s",
        "SERVICE_MANAGER_PORT": "81",
        "SERVICE_MANAGER_METRICS_LISTEN": "[::1]:9464",
        "SERVICE_MANAGER_COMPOSE_FILE": "/a:/b",
        "SERVICE_MANAGER_RESYNC": "30",
        "SERVICE_MANAGER_INSECURE": "yes",
    }
    options = run_options(**environ)
    assert options.desired_state == Path("/d")
    assert options.metrics_listen == Address("::1", 9464)
    assert str(options.metrics_listen) == "[::1]:9464"
    assert options.compose_file == (Path("/a"), Path("/b"))
    assert (options.port, options.resync, options.insecure) == (81, 30.0, True)


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    options = run_options()
    assert options.desired_state == tmp_path / "desired-state"
    assert options.state_dir == tmp_path / "home/.local/state/service-manager"
    assert (options.host, options.port, options.engine, options.resync) == ("127.0.0.1", 8000, "docker", 60.0)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert run_options().state_dir == Path("/var/lib/one")


def test_commands_use_the_installed_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr("reconciler.cli.options.option_types.INSTALLED_STATE", tmp_path)
    assert parsed("plan")["state_dir"] == tmp_path
    assert parsed("plan", "--state-dir", "/s")["state_dir"] == Path("/s")
    assert parsed("run")["state_dir"] != tmp_path


def test_link_in_a_path_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert parsed("plan", "--desired-state", f"{tmp_path}/link/x")["desired_state"] == tmp_path / "link/x"


def test_option_takes_precedence_over_its_variable() -> None:
    assert parsed("run", "--port", "90", SERVICE_MANAGER_PORT="80")["port"] == 90
    assert parsed("run", "--port", "90", SERVICE_MANAGER_PORT="nonsense")["port"] == 90
    assert parsed("start", "a", "--no-wait=no", SERVICE_MANAGER_NO_WAIT="1")["no_wait"] is False


def test_empty_variable_is_ignored() -> None:
    assert parsed("run", SERVICE_MANAGER_PORT="", SERVICE_MANAGER_INSECURE=" ")["port"] == 8000


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "x"),
        ("PORT", "70000"),
        ("ENGINE", "nomad"),
        ("RESYNC", "soon"),
        ("RESYNC", "-1"),
        ("RESYNC", "0"),
        ("RESYNC", "nan"),
        ("METRICS_LISTEN", "9464"),
        ("INSECURE", "perhaps"),
        ("HOST", "a b"),
    ],
)
def test_invalid_variable_is_named(variable: str, value: str) -> None:
    error = usage_error("run", **{f"SERVICE_MANAGER_{variable}": value})
    assert error.startswith(f"SERVICE_MANAGER_{variable}: ")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x?y=1", "http://x:notaport"])
def test_invalid_url(url: str) -> None:
    assert usage_error("status", "--url", url).startswith("--url: expected an address")


def test_urls_are_completed() -> None:
    assert parsed("status", "--url", "box:8010/")["connection"] == Connection("http://box:8010")
    assert parsed("status")["connection"] == Connection("http://127.0.0.1:8000")


def test_default_url_has_the_port_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_MANAGER_PORT", "8010")
    assert parsed("status")["connection"].url == "http://127.0.0.1:8010"


def test_options_between_groups() -> None:
    values = parsed("start", "kafka", "--force", "search", "--timeout", "5")
    assert (values["group"], values["force"], values["timeout"]) == (("kafka", "search"), True, 5.0)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["start"], "GROUP is missing", ""),
        (["init"], "COMPOSE_FILE is missing", ""),
        (["status", "a", "b"], "unexpected argument 'b'", ""),
        (["plan", "--ouput", "json"], "unknown option --ouput", "did you mean '--output'?"),
        (["plan", "--output"], "service-manager plan: Option '--output' requires an argument", ""),
        (["plan", "--output", "xml"], "--output: expected text or json, found 'xml'", ""),
        (["version", "-x"], "unknown option -x", "the options are --output"),
        (["schema", "-x"], "unknown option -x", "this command has no options"),
        (["progress", "x"], "GENERATION: expected a whole number", ""),
        (["validate", ""], "DIR: expected a path", ""),
        (["key", "ad"], "unknown action 'ad'", "did you mean 'add'?"),
        (["key", "add"], "NAME is missing", ""),
        (["git", "nope"], "unknown action 'nope'", "expected init, commit or log"),
        (["plan", "--desired", "x"], "unknown option --desired", "did you mean '--desired-state'?"),
        (["schema", "stac"], "there is no schema 'stac'", "did you mean 'stack'?"),
        (["completion", "bsh"], "there is no completion for 'bsh'", "did you mean 'bash'?"),
    ],
)
def test_usage_errors(words: list[str], message: str, hint: str) -> None:
    ran = run_cli(*words)
    assert ran.code == 64
    assert message in ran.err
    assert hint in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("strat", "did you mean 'start'?"),
        ("stats", "did you mean 'status'?"),
        ("xyzzy", "the commands are "),
    ],
)
def test_mistyped_command(word: str, hint: str) -> None:
    ran = run_cli(word)
    assert ran.code == 64
    assert f"there is no command {word!r}" in ran.err
    assert hint in ran.err


def test_option_before_the_command() -> None:
    ran = run_cli("--url", "x", "status")
    assert ran.code == 64
    assert "put options after the command" in ran.err


def test_schema() -> None:
    import json

    both = json.loads(run_cli("schema").out)
    assert set(both) == {"stack.yaml", "groups.yaml"}
    assert json.loads(run_cli("schema", "stack").out) == both["stack.yaml"]
    assert json.loads(run_cli("schema", "groups.yaml").out) == both["groups.yaml"]


# --- as a program -------------------------------------------------------------------------------------


def python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_MANAGER_")}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=60,
        **options,
    )


def test_help_loads_no_heavy_library() -> None:
    told = python("-X", "importtime", "-m", "reconciler", "--help").stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert "reconciler" in loaded
    assert not loaded & {"docker", "fastapi", "pydantic", "rich", "ruamel", "uvicorn", "asyncio"}


@pytest.mark.parametrize("module", ["lifecycle", "history", "logs", "suspend", "watch", "status"])
def test_command_module_loads_rich_only_to_draw(module: str) -> None:
    code = f"import sys, reconciler.cli.commands.{module}; sys.exit('rich' in sys.modules)"
    assert python("-c", code).returncode == 0


def test_closed_pipe_prints_no_traceback() -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m reconciler schema | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""


def test_c_locale_prints_no_traceback() -> None:
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "start"],
        capture_output=True,
        env=environ,
        check=False,
        timeout=60,
    )
    assert done.returncode == 64
    assert b"Traceback" not in done.stderr


def test_paths_follow_the_links_of_the_shell_s_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker Compose, called in a folder that a link leads to, names the paths of containers by the link."""
    (tmp_path / "real" / "stack").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("real/stack")
    monkeypatch.chdir(link)
    named = {
        str(link): link,
        str(tmp_path): tmp_path / "real/stack",
        "link": tmp_path / "real/stack",
        "": None,
    }
    for pwd, folder in named.items():
        monkeypatch.setenv("PWD", pwd)
        assert option_types.path("desired") == (folder or tmp_path / "real/stack") / "desired"
        assert option_types.path("../x") == tmp_path / "real" / "x"
        assert option_types.path("/a/./b") == Path("/a/b")
