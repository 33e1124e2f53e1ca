"""The adapters under test, each with a harness for changes by other programs and for faults."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from docker.errors import NotFound

from reconciler.desired_state.compose_model import services_from
from reconciler.engine import Engine
from reconciler.engine.compose.resolve import resolve
from reconciler.model.observed import Container
from reconciler.model.stack import Group, Stack
from tests.support.harness.adapter import AdapterHarness, Make, adapter_for
from tests.support.harness.private_engine import IMAGE, PrivateEngine, Project, engines, newest_engine
from tests.support.harness.private_podman import PrivatePodman

PATIENCE = 2.0
"""Patience in seconds for an engine that is known to be silent; one that responds has the usual one."""
ENGINES = engines()
ALL_ENGINES = ENGINES | newest_engine()
"""For the contract, and for tests of what engines word differently."""
PODMAN = "podman"
"""The name of Podman among the engines."""

COMPOSE = """
services:
  web:
    image: bed/standin:1
    init: true
    container_name: c-web
    command: [sh, -c, "echo one; echo two >&2; echo three; exec sleep 1000"]
    healthcheck: {test: [CMD, "true"], interval: 1h}
    networks: [net]
  sick:
    image: bed/standin:1
    init: true
    container_name: c-sick
    healthcheck: {test: [CMD-SHELL, "exit 1"], interval: 1h}
    networks: [net]
  hang:
    image: bed/standin:1
    init: true
    container_name: c-hang
    healthcheck: {test: [CMD, sleep, "1000"], interval: 1h}
    networks: [net]
  plain:
    image: bed/standin:1
    init: true
    container_name: c-plain
    restart: unless-stopped
    networks: [net]
  job:
    image: bed/standin:1
    container_name: c-job
    command: ["true"]
    networks: [net]
  hooked:
    image: bed/standin:1
    init: true
    container_name: c-hooked
    networks: [net]
    configs: [{source: greeting, target: /etc/greeting}]
    post_start: [{command: [sh, -c, "echo post_start >>/tmp/hooks"]}]
    pre_stop: [{command: [sh, -c, "echo pre_stop >>/tmp/hooks"]}]
  failing:
    image: bed/standin:1
    init: true
    container_name: c-failing
    networks: [net]
    post_start: [{command: [sh, -c, "echo what is wrong >&2; exit 3"]}]
    pre_stop: [{command: [sh, -c, "exit 4"]}]
  closed:
    image: bed/standin:1
    init: true
    container_name: c-closed
    read_only: true
    networks: [net]
    configs: [greeting]
  many:
    image: bed/standin:1
    init: true
    networks: [net]
    scale: 3
  unfetched:
    image: bed/nowhere:1
    container_name: c-unfetched
    networks: [net]
networks: {net: {}}
configs: {greeting: {content: "hello, $$HOME"}}
"""


class World(Protocol):
    """An engine, and ways to change its containers without it."""

    @property
    def engine(self) -> Engine: ...
    @property
    def stack(self) -> Stack: ...
    @property
    def measures(self) -> bool: ...
    def kill(self, container: Container) -> None: ...
    def stop(self, container: Container) -> None: ...
    def pause(self, container: Container) -> None: ...
    def rename(self, container: Container, name: str) -> None: ...
    def remove(self, container: Container) -> None: ...
    def hold_name(self, name: str) -> None: ...
    def retag(self, image: str) -> None: ...
    def silent(self) -> contextlib.AbstractContextManager[None]: ...
    def file(self, container: Container, path: str) -> str: ...
    def hooks(self, container: Container) -> list[str]: ...


class DockerWorld:
    def __init__(self, bed: PrivateEngine, project: Project, stack: Stack) -> None:
        self.bed = bed
        self.project = project
        self.stack = stack
        self.engine = adapter_for(bed, project.folder.parent / "state")
        self.client = bed.client

    @property
    def measures(self) -> bool:
        return not isinstance(self.bed, PrivatePodman) or self.bed.measures

    def kill(self, container: Container) -> None:
        self.client.kill(container.id)

    def stop(self, container: Container) -> None:
        self.client.stop(container.id, timeout=1)

    def pause(self, container: Container) -> None:
        self.client.pause(container.id)

    def rename(self, container: Container, name: str) -> None:
        self.client.rename(container.id, name)

    def remove(self, container: Container) -> None:
        self.client.remove_container(container.id, force=True)

    def hold_name(self, name: str) -> None:
        self.client.create_container(IMAGE, name=name)

    def retag(self, image: str) -> None:
        self.bed.import_image(image, "LABEL changed=yes")

    def file(self, container: Container, path: str) -> str:
        chunks, _ = self.client.get_archive(container.id, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            found = archive.extractfile(archive.getmembers()[0])
            assert found is not None
            return found.read().decode()

    def hooks(self, container: Container) -> list[str]:
        try:
            return self.file(container, "/tmp/hooks").split()
        except NotFound:
            return []

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        wire = self.engine._http
        usual, wire._patience = wire._patience, PATIENCE
        try:
            with self.bed.frozen():
                yield
        finally:
            wire._patience = usual


class SimulatedWorld:
    measures = True

    def __init__(self, stack: Stack) -> None:
        from reconciler.engine.simulated.engine import SimulatedEngine
        from reconciler.engine.simulated.hooks import HookScript
        from reconciler.engine.simulated.scripts import ContainerScript

        self.stack = stack
        self.engine = SimulatedEngine(
            {
                "sick": ContainerScript(ready_after=None),
                "hang": ContainerScript(ready_after=None),
                "job": ContainerScript(exits_after=0.05),
                "failing": ContainerScript(hooks=HookScript({"post_start": 3, "pre_stop": 4})),
            }
        )
        self.engine.auto_images = False
        self.engine.images = {IMAGE: "sha256:1"}

    def kill(self, container: Container) -> None:
        self.engine.kill(container.service)

    def stop(self, container: Container) -> None:
        self.engine.stop(container.service)

    def pause(self, container: Container) -> None:
        from reconciler.model.observed import State

        self.engine.alter(container.id, state=State.PAUSED)

    def rename(self, container: Container, name: str) -> None:
        self.engine.alter(container.id, name=name)

    def remove(self, container: Container) -> None:
        self.engine.drop(container.id)

    def hold_name(self, name: str) -> None:
        self.engine.foreign[name] = "somebody-else"

    def retag(self, image: str) -> None:
        self.engine.tag(image, "sha256:2")

    def file(self, container: Container, path: str) -> str:
        return self.engine.start_work.files[container.id][path]

    def hooks(self, container: Container) -> list[str]:
        return [run.stage for run in self.engine.start_work.runs if run.container == container.id]

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        self.engine.unavailable = True
        try:
            yield
        finally:
            self.engine.unavailable = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test that needs the second engine waits for its file system.
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture(scope="session")
def beds() -> Iterator[Callable[[str], PrivateEngine]]:
    """Private engines by name, one of each for the whole session; tests clean up after themselves."""
    with contextlib.ExitStack() as running:

        def bed(name: str) -> PrivateEngine:
            engine = PrivatePodman() if name == PODMAN else PrivateEngine(ALL_ENGINES[name])
            return running.enter_context(engine)

        yield functools.cache(bed)


@pytest.fixture(params=ENGINES)
def clean(request: pytest.FixtureRequest, beds: Callable[[str], PrivateEngine]) -> Iterator[PrivateEngine]:
    """Each private engine in turn, empty."""
    with emptied(beds(request.param)) as engine:
        yield engine


@contextlib.contextmanager
def emptied(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The engine; empty again afterwards."""
    yield engine
    if not engine.running:
        # The test failed while the engine was down.
        engine.start()
    engine.wipe()


@pytest.fixture
async def bench(clean: PrivateEngine, tmp_path: Path) -> AsyncIterator[Make]:
    """Creates a bench for a Compose file, on each engine in turn."""
    made: list[AdapterHarness] = []

    async def make(compose: str, patience: float = 5.0) -> AdapterHarness:
        one = AdapterHarness(clean, Project(clean, tmp_path / "project", "only", compose), patience)
        made.append(one)
        await one.resolve()
        return one

    yield make
    for one in made:
        await one.engine.close()
        one.client.close()


@pytest.fixture(scope="session")
def contract_stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The Compose file as values, for adapters that do not read the file; resolved once."""
    folder = tmp_path_factory.mktemp("contract")
    file = folder / "compose.yaml"
    file.write_text(COMPOSE)
    services = services_from(asyncio.run(resolve([file], folder, "contract", environ={})), "contract")
    group = Group(name="all", services=tuple(services))
    return Stack(name="contract", groups={"all": group}, services=services)


@pytest.fixture(params=[*ALL_ENGINES, PODMAN, "simulated"])
async def world(
    request: pytest.FixtureRequest,
    beds: Callable[[str], PrivateEngine],
    tmp_path: Path,
    contract_stack: Stack,
) -> AsyncIterator[World]:
    """Each adapter, and each engine, in turn, with the same Compose file."""
    if request.param == "simulated":
        simulated = SimulatedWorld(contract_stack)
        yield simulated
        await simulated.engine.close()
        return
    with emptied(beds(request.param)) as engine:
        project = Project(engine, tmp_path / "project", "contract", COMPOSE)
        real = DockerWorld(engine, project, await project.stack())
        yield real
        await real.engine.close()
        real.client.close()
