"""Services with several containers, and with none, on a real engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.compose.discovery import find_compose
from tests.support.harness.daemon import Daemon, service_of
from tests.support.harness.engine_recorder import PROJECT as PROJECT_LABEL
from tests.support.harness.private_engine import IMAGE, PrivateEngine

STACK = """\
name: many
compose: [compose.yaml]
groups:
  main: {services: [web, seed, tool, app], memory: 10MB}
"""
COMPOSE = f"""\
name: many
x-standin: &standin {{image: "{IMAGE}", init: true, stop_grace_period: 2s, networks: [net]}}
services:
  web:
    <<: *standin
    scale: 3
    environment: {{COLOUR: blue}}
  seed:
    <<: *standin
    command: [sh, -c, "echo ran >> /data/runs"]
    volumes: ["data:/data"]
    deploy: {{replicas: "${{SEED:-0}}"}}
  tool: {{<<: *standin, scale: 0}}
  app:
    <<: *standin
    depends_on:
      web: {{condition: service_started}}
      seed: {{condition: service_completed_successfully}}
volumes: {{data: {{}}}}
networks: {{net: {{}}}}
"""
ALL = {"many-app-1", "many-web-1", "many-web-2", "many-web-3"}


class Field:
    """The project of this file: its folder, its daemon and its containers."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.engine = engine
        self.client = engine.client
        self.desired = folder / "desired"
        self.desired.mkdir()
        for name, text in (
            ("stack.yaml", STACK),
            ("compose.yaml", COMPOSE),
            ("groups.yaml", "groups: {main: on}"),
        ):
            self.save(name, text)
        self.daemon = Daemon(self.desired, folder / "state", engine.environ)

    def save(self, name: str, text: str) -> None:
        (self.desired / f".{name}").write_text(text)
        (self.desired / f".{name}").replace(self.desired / name)

    def person(self, *arguments: str) -> None:
        command = [find_compose(self.engine.environ).path, *arguments]
        subprocess.run(command, cwd=self.desired, env=self.engine.environ, capture_output=True, check=True)

    def containers(self) -> dict[str, tuple[str, str]]:
        """State and id by name."""
        filters = {"label": f"{PROJECT_LABEL}=many"}
        found = self.client.containers(all=True, filters=filters)
        return {entry["Names"][0].removeprefix("/"): (entry["State"], entry["Id"]) for entry in found}

    def up(self) -> set[str]:
        return {name for name, (state, _) in self.containers().items() if state == "running"}

    def ids(self) -> dict[str, str]:
        return {name: id for name, (_, id) in self.containers().items()}

    def fewest(self, since: str) -> int:
        """The least number of running web containers since a time (wall seconds) at which three ran."""
        filters = {"label": f"{PROJECT_LABEL}=many", "event": ["die", "start"]}
        until = int(time.time()) + 1
        events = self.client.events(since=since, until=until, filters=filters, decode=True)
        running, fewest = 3, 3
        for event in sorted(events, key=lambda event: event["timeNano"]):
            if event["Actor"]["Attributes"]["com.docker.compose.service"] == "web":
                running += 1 if event["Action"] == "start" else -1
                fewest = min(fewest, running)
        assert running == 3
        return fewest

    def until(self, good: Callable[[], Any], within: float = 40.0) -> None:
        deadline = time.monotonic() + within
        while not good():
            assert time.monotonic() < deadline, (self.containers(), self.daemon.log()[-3000:])
            time.sleep(0.02)


@pytest.fixture
def field(engine: PrivateEngine, tmp_path: Path) -> Iterator[Field]:
    found = Field(engine, tmp_path)
    try:
        yield found
    finally:
        found.daemon.kill()
        found.person("down", "-v", "--timeout", "1")
        found.client.close()


def test_replicas_are_adopted_repaired_switched_and_never_reduced_unasked(field: Field) -> None:
    field.person("up", "-d")
    before = field.ids()
    assert before.keys() == ALL
    field.daemon.start()
    field.daemon.converged()
    assert field.ids() == before, "adopted"
    status = field.daemon.status
    assert [service_of(status, name)["reason"] for name in ("seed", "tool")] == ["scaled_to_zero"] * 2
    assert status["groups"]["main"]["status"] == "running"

    field.client.kill("many-web-2")
    field.until(lambda: field.up() == ALL)
    assert field.ids() == before
    field.client.remove_container("many-web-1", force=True)
    field.until(lambda: field.up() == ALL - {"many-web-1"} | {"many-web-4"})
    field.daemon.converged()

    field.daemon.post("/services/stop/main")
    field.until(lambda: not field.up())
    field.daemon.converged()
    assert service_of(field.daemon.status, "seed")["reason"] == "scaled_to_zero"
    field.daemon.post("/services/start/main")
    field.until(lambda: len(field.up()) == 4)
    field.daemon.converged()

    before = field.ids()
    field.person("up", "-d", "--no-recreate", "--scale", "web=5")
    field.daemon.until(lambda s: service_of(s, "web")["drift"] == ["duplicate", "duplicate"])
    drift = [d for d in field.daemon.get("/services/drift")["drift"] if d["kind"] == "duplicate"]
    assert {d["container"] for d in drift} == set(field.ids().values()) - set(before.values())
    assert all("5 containers here, 3 in the Compose file" in d["message"] for d in drift)
    assert service_of(field.daemon.status, "web")["ready"]
    assert len(field.up()) == 6
    assert before.items() <= field.ids().items(), "nothing was touched"
    field.daemon.post("/services/accept/main")
    field.until(lambda: field.ids() == before)
    field.daemon.converged()
    field.person("up", "-d", "--no-recreate", "--scale", "web=1")
    field.until(lambda: len(field.up()) == 4)
    field.daemon.converged()


def test_changed_definition_recreates_each_replica_once_and_a_changed_number_only_adds(
    field: Field,
) -> None:
    field.daemon.start()
    field.daemon.converged()
    before = field.ids()
    assert before.keys() == ALL
    began = f"{time.time():.6f}"
    field.save("compose.yaml", COMPOSE.replace("COLOUR: blue", "COLOUR: red"))
    field.until(
        lambda: (
            field.up() == ALL
            and not set(field.ids().values()) & set(before.values()) - {before["many-app-1"]}
        )
    )
    field.daemon.converged()
    assert field.fewest(began) == 2, "one after the other"
    remade = field.ids()
    red = COMPOSE.replace("COLOUR: blue", "COLOUR: red")
    field.save("compose.yaml", red.replace("scale: 3", "scale: 4"))
    field.until(lambda: field.up() == ALL | {"many-web-4"})
    field.daemon.converged()
    assert remade.items() <= field.ids().items()
    field.save("compose.yaml", red.replace("scale: 3", "scale: 0"))
    field.daemon.until(
        lambda s: service_of(s, "web")["drift"] == [] and service_of(s, "web")["reason"] == "held_back"
    )
    assert field.up() == ALL | {"many-web-4"}
    field.daemon.post("/services/accept/main")
    field.until(lambda: field.ids().keys() == {"many-app-1"})
    field.daemon.converged()
