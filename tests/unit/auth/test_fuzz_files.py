"""Whatever a file contains, its reader returns a value or raises a documented error (issue 13, S3)."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.auth.keys import KeyFile, KeyRing, KeyStoreError
from reconciler.controller import ledger_file
from reconciler.controller.crash_logs import CrashLogStore
from reconciler.desired_state.compose_inputs import compose_input_files
from reconciler.desired_state.store import Store
from reconciler.engine.compose.discovery import config_file
from reconciler.engine.compose.error_locations import mistakes_in
from reconciler.engine.docker.address import find_address
from reconciler.errors import InvalidDesiredState, WriteRefused
from reconciler.generations.outcomes import final_progress
from reconciler.generations.store import Generations
from reconciler.host.yaml_positions import parse_document, tree
from reconciler.model.change_reason import EDITED, ChangeReason
from reconciler.model.ledger import Clock
from reconciler.model.resolved_compose import Resolved
from tests.support.fixtures.desired_state import COMPOSE, GROUPS, STACK, a_directory, a_store, switch
from tests.support.fixtures.nasty import bounded, contents, damaged, misshapen, texts


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@bounded
@given(content=st.one_of(contents, damaged(STACK), damaged(GROUPS)))
def test_yaml_is_parsed_or_rejected(content: bytes) -> None:
    for lenient in (False, True):
        with suppress(InvalidDesiredState):
            parse_document("f.yaml", content, lenient=lenient)
    with suppress(InvalidDesiredState):
        tree("f.yaml", content)


@bounded
@given(
    stack=st.one_of(st.just(STACK.encode()), damaged(STACK)),
    groups=st.one_of(st.just(GROUPS.encode()), damaged(GROUPS)),
    compose=st.one_of(st.just(COMPOSE.encode()), damaged(COMPOSE)),
    settings=contents,
)
def test_a_directory_is_loaded_and_written_or_rejected(
    stack: bytes, groups: bytes, compose: bytes, settings: bytes
) -> None:
    async def scenario(directory: Path) -> None:
        store = a_store(directory)
        with suppress(InvalidDesiredState):
            await store.load()
        with suppress(WriteRefused, KeyError):
            await store.write(switch("base", on=False))

    with a_folder() as folder:
        directory = a_directory(folder)
        for name, content in {"stack": stack, "groups": groups, "compose": compose}.items():
            (directory / f"{name}.yaml").write_bytes(content)
        (directory / ".env").write_bytes(settings)
        asyncio.run(scenario(directory))


RESOLVED = {
    "name": "demo",
    "services": {
        "db": {
            "image": "db:1",
            "healthcheck": {"test": ["CMD", "true"], "interval": "5s", "retries": 3},
            "ports": [{"target": 80, "published": "8080", "protocol": "tcp", "host_ip": "::"}],
            "volumes": [{"type": "bind", "source": "/a", "target": "/b"}],
            "networks": {"default": {"aliases": ["d"]}},
            "depends_on": {"cache": {"condition": "service_started", "required": True}},
            "deploy": {"replicas": 1},
            "stop_grace_period": "10s",
            "environment": {"A": "b"},
        },
        "cache": {"image": "cache:1", "configs": [{"source": "c", "target": "/c"}]},
        "app": {"image": "app:1", "volumes_from": ["db"], "secrets": [{"source": "s"}]},
    },
    "configs": {"c": {"content": "x"}},
    "secrets": {"s": {"environment": "S"}},
    "networks": {"default": {"name": "demo_default"}},
}


@bounded
@given(text=st.one_of(contents, damaged(json.dumps(RESOLVED)), misshapen(RESOLVED)))
def test_any_resolved_model_is_loaded_or_rejected(text: bytes) -> None:
    async def resolve(*_: object) -> Resolved:
        return Resolved(text, {}, "2.0")

    with a_folder() as folder, suppress(InvalidDesiredState):
        asyncio.run(Store(a_directory(folder), resolve).load())


MESSAGES = st.one_of(
    texts,
    st.sampled_from(
        [
            "services.a.b.c.d must be a string",
            "services.db additional properties 'x' not allowed",
            'service "db" refers to undefined network x: invalid compose project',
            "dependency cycle detected: db -> cache",
            "open /nowhere/x.yaml: no such file",
            "yaml: line 99999999999999999999: nonsense",
        ]
    ),
)


@bounded
@given(messages=st.lists(MESSAGES, max_size=3), content=st.one_of(contents, damaged(COMPOSE)))
def test_an_error_of_compose_is_located_in_any_file(messages: list[str], content: bytes) -> None:
    with a_folder() as folder:
        file = folder / "compose.yaml"
        file.write_bytes(content)
        for message in (messages, [f"validating {file}: {text}" for text in messages]):
            assert mistakes_in(message, [file, folder / "gone.yaml"])


@bounded
@given(content=st.one_of(contents, damaged(COMPOSE)), settings=contents, name=texts)
def test_the_input_files_of_a_project_are_listed(content: bytes, settings: bytes, name: str) -> None:
    included = json.dumps(
        {"include": [name], "services": {"a": {"env_file": [name], "extends": {"file": name}}}}
    )
    for given_ in (content, included.encode(errors="surrogatepass")):
        held = {Path("/p/compose.yaml"): given_, Path("/p/.env"): settings}
        compose_input_files(held.get, [Path("/p/compose.yaml")], {})


KEYS = {"schema": 1, "keys": [{"name": "a", "role": "viewer", "digest": "00" * 32, "created_at": 1.5}]}


@bounded
@given(content=st.one_of(contents, damaged(json.dumps(KEYS)), misshapen(KEYS)))
def test_keys_are_read_or_none_of_them_is_valid(content: bytes) -> None:
    with a_folder() as folder:
        now = [0.0]
        good = KeyFile(folder).add("good", "operator", at=0.0)
        ring = KeyRing(folder, clock=lambda: now[0])
        assert ring.find(good)
        aside = folder / "new"
        aside.write_bytes(content)
        aside.replace(folder / "keys.json")
        now[0] = 10.0
        assert ring.find(good) is None
        try:
            KeyFile(folder).read()
        except KeyStoreError:
            assert ring.required


LEDGER = {
    "schema": 1,
    "made": {"db": ["d", {"image": "i"}, "x", ["n"], 1.5, {"/b": ["/a", "d", "i"]}, {"a": 1.0}, "i", "c"]},
    "making": {},
    "failures": {"db": [3, "i", "r", "e", 1.5, "c"]},
    "settled": {"db": "x"},
    "restarted": {"db": 1.5},
    "followed": {"db": "x"},
    "tied": {"db": ["r", {"cache": "r"}]},
    "stopped": {"db": 1.5},
    "exits": {"db": ["c", 1.5, 1, False, [1.5]]},
    "durations": {"db": [1.5]},
    "brackets": {"db": [1.0, 2.0]},
    "changes": {"db": ["m", 1.5]},
    "at_work": {"db": 1.5},
    "cut": {},
    "hooks": {},
    "boot": "b",
}


@bounded
@given(content=st.one_of(contents, damaged(json.dumps(LEDGER)), misshapen(LEDGER)))
def test_a_ledger_is_read_or_begun_empty(content: bytes) -> None:
    with a_folder() as folder:
        (folder / ledger_file.NAME).write_bytes(content)
        assert ledger_file.read(folder, Clock(0.0, 0.0)) is not None


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a state directory with two generations."""
    state = tmp_path_factory.mktemp("state")
    generations = Generations(state)

    async def load() -> None:
        store = a_store(a_directory(tmp_path_factory.mktemp("desired")))
        generations.record(await store.load(), author="a", reason=EDITED, at=1.0)
        written = await store.write(switch("web"))
        generations.record(written.after, author="a", reason=ChangeReason("start", "web"), at=2.0)

    asyncio.run(load())
    generations.record_outcome(2, "converged", "", 3.0, '{"state": "converged", "steps": []}')
    return {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}


@bounded
@given(data=st.data())
def test_damaged_generations_are_set_aside(accepted: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(accepted)))
    content = accepted[name]
    kind = damaged(content)
    if name.startswith("generations/"):
        kind = st.one_of(kind, misshapen(json.loads(content)))
    with a_folder() as folder:
        for other, held in accepted.items():
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_bytes(held)
        (folder / name).write_bytes(data.draw(kind))
        generations = Generations(folder)
        generations.latest()
        for record in generations.history():
            final_progress(record, 2)
            with suppress(WriteRefused):
                generations.sources(record.generation)
            with suppress(WriteRefused):
                generations.state(record.generation)


KEPT = {
    "container": "c",
    "name": "n",
    "exit_code": 1,
    "oom_killed": False,
    "finished_at": 1.5,
    "lines": ["a"],
}


@bounded
@given(content=st.one_of(contents, misshapen(KEPT)))
def test_crash_logs_are_read_or_omitted(content: bytes) -> None:
    with a_folder() as folder:
        (folder / "evidence").mkdir()
        (folder / "evidence" / "db.json").write_bytes(content)
        asyncio.run(CrashLogStore(folder, lambda *_: iter(()), lambda *_: None).lines("db"))  # type: ignore[arg-type, return-value]


CONFIG = {"currentContext": "other", "cliPluginsExtraDirs": ["/x"], "credHelpers": {"r": "h"}}


@bounded
@given(content=st.one_of(contents, misshapen(CONFIG)))
def test_settings_of_the_docker_cli_are_read_or_ignored(content: bytes) -> None:
    with a_folder() as folder:
        (folder / "config.json").write_bytes(content)
        environ = {"DOCKER_CONFIG": str(folder)}
        config_file(environ)
        find_address(environ)


@pytest.mark.parametrize(
    "name", ["keys.json", "ledger.json", "generations/000000000001.json", "evidence/db.json"]
)
def test_a_pipe_in_the_state_directory_does_not_block(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    ledger_file.read(tmp_path, Clock(0.0, 0.0))
    assert Generations(tmp_path).latest() is None
    assert KeyRing(tmp_path).required == (name == "keys.json")
