"""Compose and the engine's messages, without an engine."""

from __future__ import annotations

import hashlib
import json
import socket
import textwrap
from pathlib import Path

import pytest

from reconciler.engine.compose.discovery import environment, find_compose
from reconciler.engine.compose.resolve import resolve
from reconciler.engine.compose.subprocess import run
from reconciler.engine.docker.address import Address, find_address
from reconciler.engine.docker.parse import (
    full_name,
    health_check,
    image_named,
    parse_timestamp,
    repository_and_tag,
    tags_of,
)
from reconciler.engine.error_reasons import failure, lost_engine, redact, truncate, wanted_port
from reconciler.errors import InvalidDesiredState, PermanentStepFailure


async def mistake_in(tmp_path: Path, text: str) -> tuple[str, int, str]:
    file = tmp_path / "compose.yaml"
    file.write_text(textwrap.dedent(text))
    with pytest.raises(InvalidDesiredState) as caught:
        await resolve([file], tmp_path, "some", environ={})
    (mistake,) = caught.value.mistakes
    return Path(mistake.path).name, mistake.line, mistake.message


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("services:\n  a:\n   image: x\n  b: [\n", 4, "did not find expected node content"),
        ("services:\n  a:\n    image: [1]\n", 3, "services.a.image must be a string"),
        ("services:\n  a:\n    imag: x\n", 3, "additional properties 'imag' not allowed"),
        ("foo: 1\n", 1, "additional properties 'foo' not allowed"),
        ("services:\n  a:\n    image: x\n    image: y\n", 4, "already defined"),
        (
            "services:\n  a:\n    image: x\n    depends_on:\n      - b\n      - zz\n  b: {image: x}\n",
            6,
            '"zz"',
        ),
        ("services:\n  a:\n    image: x\n    networks: [q]\n", 4, "undefined network q"),
        ("services:\n  a:\n    image: x\n    env_file: nope.env\n", 4, "nope.env not found"),
        ("services:\n  a:\n    image: ${X?must be set}\n", 3, "must be set"),
        ("services:\n  a:\n    image: x\n    healthcheck:\n      interval: zz\n", 5, "invalid duration"),
        ("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", 2, "cycle"),
        ("", 0, "empty compose file"),
    ],
)
async def test_a_mistake_has_a_position(tmp_path: Path, text: str, line: int, said: str) -> None:
    name, found, message = await mistake_in(tmp_path, text)
    assert (name, found) == ("compose.yaml", line), message
    assert said in message


async def test_the_file_with_the_mistake_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("services:\n  a: {image: x}\n")
    bad.write_text("services:\n  a:\n    depends_on: [nobody]\n")
    with pytest.raises(InvalidDesiredState) as caught:
        await resolve([good, bad], tmp_path, "some", environ={})
    assert (caught.value.mistakes[0].path, caught.value.mistakes[0].line) == (str(bad), 3)


@pytest.mark.pitfall(3)
async def test_the_daemon_s_own_environment_does_not_reach_compose(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {a: {image: 'x:${SOME}', environment: {B: '${OTHER}'}}}")
    (tmp_path / ".env").write_text("OTHER=from the project\n")
    surroundings = {"SOME": "of-the-daemon", "COMPOSE_PROFILES": "none", "COMPOSE_FILE": "elsewhere"}
    resolved = await resolve([file], tmp_path, "some", environ=surroundings)
    service = json.loads(resolved.text)["services"]["a"]
    assert service["image"] == "x:"
    assert service["environment"] == {"B": "from the project"}
    assert resolved.warnings == ('The "SOME" variable is not set. Defaulting to a blank string.',)
    assert set(resolved.hashes) == {"a"}
    assert resolved.version == find_compose({}).version


_PWD_EVERYWHERE = """\
services:
  web:
    image: x
    extends: {file: "${PWD}/base.yaml", service: base}
    env_file: ["${PWD}/app.env"]
    build: {context: "$PWD/image"}
    labels: {where: "${PWD}"}
    environment: [PWD]
    volumes: ["${PWD}/conf:/conf:ro"]
    configs: [app, at]
    secrets: [key]
configs: {app: {file: "${PWD}/app.conf"}, at: {environment: PWD}}
secrets: {key: {file: "${PWD-/nowhere}/key"}}
"""


@pytest.mark.parametrize("inner", ["plain", "with space", "a&b", "cost$5"])
async def test_pwd_is_the_project_s_folder_everywhere_in_a_file(tmp_path: Path, inner: str) -> None:
    """Issue 13, 3: Compose ran in the root directory, so that ``${PWD}/conf`` was ``/conf`` of the host."""
    folder = tmp_path / inner
    (folder / "desired-state").mkdir(parents=True)
    (folder / "compose.yaml").write_text(_PWD_EVERYWHERE)
    (folder / "base.yaml").write_text("services: {base: {environment: {BASE: '1'}}}")
    (folder / "app.env").write_text("APP=1\n")
    file = folder / "desired-state" / ".." / "compose.yaml"
    for surroundings in ({}, {"PWD": "/somewhere/else"}):
        resolved = await resolve([file], file.parent, "some", environ=surroundings)
        model = json.loads(resolved.text.replace(b"$$", b"$"))
        web = model["services"]["web"]
        assert web["volumes"][0]["source"] == f"{folder}/conf"
        assert web["environment"] == {"APP": "1", "BASE": "1", "PWD": str(folder)}
        assert web["build"]["context"] == f"{folder}/image"
        assert web["labels"] == {"where": str(folder)}
        assert model["configs"]["app"]["file"] == f"{folder}/app.conf"
        assert model["secrets"]["key"]["file"] == f"{folder}/key"
        assert resolved.warnings == ()
        assert list(resolved.values.values()) == [str(folder)]
    # A commit is validated in its own folder, and must have the same meaning as in its final place.
    judged = await resolve([file], file.parent, "some", environ={}, without=str(folder))
    assert json.loads(judged.text)["services"]["web"]["labels"] == {"where": ""}
    assert str(tmp_path).encode() not in judged.text
    assert list(judged.values.values()) == [""]


async def test_compose_runs_in_the_project_s_folder_or_without_it_if_it_is_gone(tmp_path: Path) -> None:
    show = ["/bin/sh", "-c", "echo $PWD; exec /bin/pwd -P"]
    told = [
        (await run(show, environ={}, quiet=9.0, limit=9.0, directory=str(folder), keep_output=True)).output
        for folder in (tmp_path, tmp_path / "gone")
    ]
    # A shell corrects a wrong PWD; Compose uses it as given.
    assert told == [f"{tmp_path}\n{tmp_path}\n".encode(), b"/\n/\n"]


def test_the_environment_is_fixed() -> None:
    given = {"HOME": "/h", "PATH": "/p", "DOCKER_HOST": "unix:///s", "COMPOSE_FILE": "x", "FOO": "1"}
    assert environment(given) == {"HOME": "/h", "PATH": "/p", "DOCKER_HOST": "unix:///s"}
    assert set(environment({})) == {"HOME", "PATH"}


# --- the address of the engine ---


def test_the_engine_s_address_is_that_of_the_docker_command(tmp_path: Path) -> None:
    surroundings = {"DOCKER_CONFIG": str(tmp_path)}
    assert find_address(surroundings) == Address("unix:///var/run/docker.sock")
    folder = tmp_path / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    folder.mkdir(parents=True)
    meta = {"Name": "mine", "Endpoints": {"docker": {"Host": "unix:///run/user/1/docker.sock"}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    assert find_address(surroundings).socket == "/run/user/1/docker.sock"
    assert find_address(surroundings | {"DOCKER_CONTEXT": "default"}) == Address(
        "unix:///var/run/docker.sock"
    )
    assert "docker context ls" in find_address(surroundings | {"DOCKER_CONTEXT": "absent"}).problem
    secured = {"DOCKER_HOST": "tcp://box:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"}
    assert find_address(surroundings | secured) == Address("tcp://box:2376", Path("/c"))
    assert find_address(surroundings | secured).host == ("box", 2376)
    assert "not supported" in find_address({"DOCKER_HOST": "ssh://box"}).problem


# --- the engine's messages ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('Conflict. The container name "/a" is already in use by container "1f"', "name_conflict"),
        ("driver failed programming: Bind for 0.0.0.0:80 failed: port is already allocated", "port_conflict"),
        (
            "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
            "port_conflict",
        ),
        ("No such image: x:1", "image_unavailable"),
        ("manifest for x:9 not found: manifest unknown: manifest unknown", "image_unavailable"),
        (
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry: no such host',
            "image_unavailable",
        ),
        ("network 5f2a not found", "network_missing"),
        ("network absent declared as external, but could not be found", "network_missing"),
        ("invalid mount config for type bind: bind source path does not exist: /a", "mount_missing"),
        ("write /var/lib/docker/x: no space left on device", "disk_full"),
        ("invalid reference format", "definition_invalid"),
        ("Unknown runtime specified absent", "definition_invalid"),
        ("unknown or invalid runtime name: absent", "definition_invalid"),
        ("something else entirely", "step_failed"),
    ],
)
def test_refusals_have_a_stable_word(text: str, reason: str) -> None:
    assert failure(text).reason == reason


def test_a_refusal_that_recurs_is_permanent() -> None:
    assert isinstance(failure("pull access denied for x, repository does not exist"), PermanentStepFailure)
    assert isinstance(failure("invalid reference format"), PermanentStepFailure)
    assert not isinstance(failure("dial tcp: lookup registry: no such host"), PermanentStepFailure)


def test_a_missing_engine_is_no_refusal() -> None:
    assert lost_engine("Cannot connect to the Docker daemon at unix:///s. Is the docker daemon running?")
    assert lost_engine("No such image: x") is None


def test_the_port_is_parsed_from_the_message() -> None:
    assert wanted_port("Bind for 0.0.0.0:8080 failed: port is already allocated") == 8080
    assert wanted_port("listen tcp4 0.0.0.0:18080: bind: address already in use") == 18080
    assert wanted_port("something else") == 0


def test_no_secret_gets_into_a_message() -> None:
    assert redact("login with hunter2 failed", ["hunter2"]) == "login with *** failed"
    assert truncate("get https://me:hunter2@box/v2") == "get https://***@box/v2"
    assert len(truncate("x" * 5000)) <= 600


def test_times() -> None:
    assert parse_timestamp("0001-01-01T00:00:00Z") == 0.0
    assert parse_timestamp("") == parse_timestamp(None) == 0.0
    assert parse_timestamp("1970-01-01T00:00:01.5Z") == 1.5
    assert parse_timestamp("2026-11-24T04:15:54.505786475Z") == pytest.approx(1795493754.505786, abs=1e-6)
    assert parse_timestamp("2026-11-24T05:15:54+01:00") == 1795493754.0


@pytest.mark.parametrize(
    ("config", "check"),
    [
        ({}, ()),
        ({"Healthcheck": {"Test": ["NONE"]}}, ()),
        ({"Healthcheck": {"Test": []}}, ()),
        ({"Healthcheck": {"Test": ["CMD", "a", "b"]}}, ("a", "b")),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a b"]}}, ("/bin/sh", "-c", "a b")),
        (
            {"Healthcheck": {"Test": ["CMD-SHELL", "a"]}, "Shell": ["/bin/bash", "-ec"]},
            ("/bin/bash", "-ec", "a"),
        ),
    ],
)
def test_health_checks_become_arguments(config: dict[str, object], check: tuple[str, ...]) -> None:
    assert health_check(config) == check


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io/redis", "docker.io/library/redis:latest"),
        ("index.docker.io/me/app:1", "docker.io/me/app:1"),
        ("box:5000/app", "box:5000/app:latest"),
        ("localhost/app:2", "localhost/app:2"),
        ("gcr.io/cadvisor/cadvisor:v1", "gcr.io/cadvisor/cadvisor:v1"),
        ("redis:7@sha256:ab", "docker.io/library/redis@sha256:ab"),
    ],
)
def test_image_names_in_full(reference: str, full: str) -> None:
    assert full_name(reference) == full


def test_references_in_the_form_of_a_pull() -> None:
    assert repository_and_tag("redis") == ("redis", "latest")
    assert repository_and_tag("box:5000/app:2") == ("box:5000/app", "2")
    assert repository_and_tag("redis:7@sha256:ab") == ("redis", "sha256:ab")


def test_images_by_tag_digest_and_id() -> None:
    id = "sha256:" + "a1" * 32
    tags = tags_of(
        [
            {"Id": id, "RepoTags": ["redis:7"], "RepoDigests": ["redis@sha256:ff"]},
            {"Id": "sha256:other", "RepoTags": ["<none>:<none>"], "RepoDigests": None},
        ]
    )
    assert {image_named(name, tags) for name in ("redis:7", "docker.io/redis:7", "redis@sha256:ff")} == {id}
    assert image_named(id, tags) == image_named("a1a1a1a1a1a1", tags) == id
    assert image_named("redis", tags) == ""


@pytest.mark.parametrize(
    "text",
    [
        "include: ['{url}.git']",
        "include: ['{url}.git#main:compose.yaml']",
        "include: ['oci://{address}/images/one:latest']",
        "services:\n  web:\n    extends: {{file: '{url}.git', service: web}}",
        "include: [inner.yaml]",
    ],
)
async def test_nothing_is_fetched_unless_it_is_allowed(tmp_path: Path, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        names = {"url": f"http://{address}/one", "address": address}
        file = tmp_path / "compose.yaml"
        file.write_text(text.format(**names) + "\n")
        (tmp_path / "inner.yaml").write_text("include: ['{url}.git']\n".format(**names))
        with pytest.raises(InvalidDesiredState, match="remote_includes: true"):
            await resolve([file], tmp_path, "probe")
        with pytest.raises(BlockingIOError):
            server.accept()
