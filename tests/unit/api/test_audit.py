"""The audit log over HTTP, events for refused requests, and entries as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from api.endpoints.audit import AuditPage, as_json, describe_request, publish_from_thread
from reconciler.audit.chain import START, append_link
from reconciler.audit.event_stream import Delivery
from reconciler.audit.log import Audit, AuditEvent, Entry, Query, WriterTimings
from reconciler.audit.query import read, verify
from reconciler.errors import InvalidDesiredState, Mistake, WriteRefused
from tests.support.fixtures.api import a_world, desired
from tests.support.fixtures.audit_log import NOW, wait_until
from tests.support.fixtures.auth import a_daemon, locked, reached, x


class FakeLog:
    """A log in memory that stores every repeat, with its key."""

    def __init__(self, *events: AuditEvent) -> None:
        self.entries = append_link(START, events)
        self.recorded: list[tuple[tuple[str, ...], AuditEvent]] = []
        self.queries: list[Query] = []
        self.error: Exception | None = None

    def on_event(self, event: AuditEvent, delivery: Delivery) -> None:
        self.recorded.append((delivery.repeat_key, event))

    async def read(self, query: Query) -> list[Entry]:
        self.queries.append(query)
        if self.error is not None:
            raise self.error
        return self.entries[-query.limit :]

    def subscribe(self, listener: object) -> None:
        pass

    @property
    def refusals(self) -> list[tuple[str, str, str, str, str]]:
        return [(f.action, f.target, f.user, f.reason, f.source) for _, f in self.recorded]


# --- reading --------------------------------------------------------------------------------------------


FACT = AuditEvent(
    "start", "kafka", "accepted", "ann", "requested", "kafka: off → on", "10.0.0.9", 7, ("kafka",), 1, NOW
)


async def test_entries_have_the_fields_of_the_contract() -> None:
    async with a_world(audit=FakeLog(FACT, FACT._replace(generation=0, times=3))) as world:
        answer = await world.client.get("/services/audit")
    page = answer.json()
    first, second = page["entries"]
    assert first == {
        "id": 1,
        "timestamp": "2026-11-24T06:00:00.000Z",
        "action": "start",
        "target": "kafka",
        "result": "accepted",
        "user": "ann",
        "reason": "requested",
        "message": "kafka: off → on",
        "source": "10.0.0.9",
        "generation": 7,
        "groups": ["kafka"],
        "count": 1,
        "hash": first["hash"],
    }
    assert (second["generation"], second["count"], page["before"]) == (None, 3, None)
    AuditPage.model_validate(page)


async def test_parameters_become_a_query_of_the_log() -> None:
    log = FakeLog(*[FACT] * 20)
    async with a_world(audit=log) as world:
        answer = await world.client.get("/services/audit?limit=5&before=12&group=kafka&action=start&user=ann")
        assert log.queries == [Query(5, 12, "kafka", "start", "ann")]
        assert answer.json()["before"] == 16
        await world.client.get("/services/audit")
    assert log.queries[1] == Query(100, 0, "", "", "")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "before=0",
        "before=-1",
        "users=ann",
        "user=" + "x" * 101,
        "limit=1&limit=2",
    ],
)
async def test_invalid_parameters_are_refused(query: str) -> None:
    async with a_world(audit=FakeLog()) as world:
        assert (await world.client.get(f"/services/audit?{query}")).status_code == 422


async def test_an_unreadable_log_is_a_503_and_harms_no_other_endpoint() -> None:
    log = FakeLog()
    log.error = sqlite3.DatabaseError("malformed")
    async with a_world(audit=log) as world:
        answer = await world.client.get("/services/audit")
        assert (answer.status_code, answer.json()["reason"]) == (503, "audit_unreadable")
        assert (await world.client.get("/services/status")).status_code == 200


async def test_the_endpoint_is_documented(tmp_path: Path) -> None:
    async with a_world(audit=FakeLog()) as world:
        document = (await world.client.get("/openapi.json")).json()
    operation = document["paths"]["/services/audit"]["get"]
    assert {"200", "401", "403", "422", "429", "503"} <= set(operation["responses"])
    assert [parameter["name"] for parameter in operation["parameters"]] == [
        "limit",
        "before",
        "group",
        "action",
        "user",
    ]
    assert {"ApiKey", "Bearer", "Session"} == set(document["components"]["securitySchemes"])
    async with locked(tmp_path) as locked_world:
        document = (await locked_world.client.get("/openapi.json")).json()
    assert {} not in document["paths"]["/services/status"]["get"]["security"]
    assert document["paths"]["/healthz"]["get"]["security"] == []


async def test_without_a_log_there_is_no_endpoint() -> None:
    async with a_world() as world:
        assert (await world.client.get("/services/audit")).status_code == 404


# --- refusals -------------------------------------------------------------------------------------------


async def test_every_kind_of_refusal_is_recorded_with_caller_source_and_target(tmp_path: Path) -> None:
    log = FakeLog()
    async with locked(tmp_path, log, client=("10.0.0.9", 1)) as world:
        post, get = world.client.post, world.client.get
        await post("/services/start/kafka")
        await post("/services/start/kafka", headers=x("wrong"))
        await post("/services/stop/kafka", headers=x(world.eye))
        await post("/services/start/analytics", headers=x(world.ann))
        await post("/services/restart/kafka", headers={"host": "evil.example"})
        await world.client.put("/services/groups/kafka", headers={**x(world.ann), "origin": "null"})
        await get("/services/status/storage")
        await get("/metrics")
        await post("/services/session", headers=x("wrong"))
        await get("/services/../../etc/passwd")
        await get("/services/status", headers=x(world.eye))
        await get("/services/status/nope", headers=x(world.eye))
        await get("/services/status?x=1", headers=x(world.eye))
    place = "10.0.0.9"
    assert log.refusals == [
        ("start", "kafka", "anonymous", "missing_key", place),
        ("start", "kafka", "anonymous", "invalid_key", place),
        ("stop", "kafka", "eye", "role_too_low", place),
        ("start", "analytics", "ann", "dependency_off", place),
        ("restart", "kafka", "anonymous", "foreign_host", place),
        ("put", "kafka", "anonymous", "foreign_origin", place),
        ("read", "storage", "anonymous", "missing_key", place),
        ("metrics", "/metrics", "anonymous", "missing_key", place),
        ("sign_in", "/services/session", "anonymous", "invalid_key", place),
        ("request", "unknown address", "anonymous", "missing_key", place),
    ]
    assert {fact.result for _, fact in log.recorded} == {"refused"}
    assert log.recorded[0][1].groups == ("kafka",)
    assert log.recorded[3][1].message == "analytics needs storage, which is off"


@pytest.mark.parametrize(
    ("refusal", "recorded"),
    [
        (WriteRefused("dependents_on", "storage depends on kafka and is on"), True),
        (InvalidDesiredState((Mistake("groups.yaml", 1, 1, "hunter2"),)), True),
        (WriteRefused("unknown_group", "there is no group 'x'"), False),
    ],
)
async def test_conflicts_are_recorded_without_contents_of_files(
    refusal: Exception, *, recorded: bool
) -> None:
    log = FakeLog()
    async with a_world(audit=log) as world:
        world.writer.refuse = refusal
        await world.client.post("/services/stop/kafka")
    assert bool(log.recorded) is recorded
    assert "hunter2" not in str(log.recorded)


async def test_repeats_are_counted_together_without_a_key_and_by_target_with_one(tmp_path: Path) -> None:
    log = FakeLog()
    async with locked(tmp_path, log) as world:
        for name in ("kafka", "storage", "zzz", "analytics"):
            await world.client.post(f"/services/start/{name}")
        for name in ("storage", "analytics", "storage"):
            await world.client.post(f"/services/stop/{name}", headers=x(world.eye))
        world.writer.refuse = WriteRefused("dependency_off", "no")
        for name in ("storage", "analytics", "storage"):
            await world.client.post(f"/services/start/{name}", headers=x(world.ann))
    keys = [key for key, _ in log.recorded]
    assert len(set(keys[:4])) == 1
    assert len(set(keys[4:7])) == 1
    assert len(set(keys[7:])) == 2


@pytest.mark.parametrize(
    ("method", "path", "described"),
    [
        ("POST", "/services/start/kafka", ("start", "kafka")),
        ("POST", "/services/start/sm_secret", ("start", "")),
        ("POST", "/services/start", ("request", "unknown address")),
        ("PUT", "/services/groups/kafka", ("put", "kafka")),
        ("POST", "/services/rollback/3", ("rollback", "")),
        ("GET", "/services/status", ("read", "/services/status")),
        ("GET", "/services/logs/sm_secret", ("read", "/services/logs")),
        ("POST", "/services/plan", ("plan", "/services/plan")),
        ("GET", "/services/sm_secret", ("request", "unknown address")),
        ("BREW", "/services/status", ("request", "unknown address")),
        ("GET", "/" + "x" * 9000, ("request", "unknown address")),
    ],
)
def test_a_request_is_described_in_a_fixed_set_of_words(
    method: str, path: str, described: tuple[str, str]
) -> None:
    assert describe_request(method, path, {"kafka": None}) == described


async def test_a_flood_of_refusals_fills_no_disk(tmp_path: Path) -> None:
    audit = Audit(tmp_path, pace=WriterTimings(gather=0.01))
    audit.start()
    async with a_world(desired(), audit=audit) as world:
        for number in range(300):
            await world.client.post(f"/services/start/group-{number}", headers={"host": "evil.example"})
    await asyncio.to_thread(audit.close, 30.0)
    assert [(e.event.reason, e.event.times) for e in read(tmp_path, Query())] == [
        ("foreign_host", 1),
        ("foreign_host", 299),
    ]


async def test_signing_in_and_out_is_recorded(tmp_path: Path) -> None:
    log = FakeLog()
    async with locked(tmp_path, log) as world:
        begun = await world.client.post("/services/session", headers=x(world.eye))
        headers = {"origin": "http://localhost:8000", "x-session-token": begun.json()["token"]}
        await world.client.delete("/services/session", headers=headers)
    assert [(f.action, f.user, f.result) for _, f in log.recorded] == [
        ("sign_in", "eye", "accepted"),
        ("sign_out", "eye", "accepted"),
    ]
    assert world.eye not in str(log.recorded)


# --- events ---------------------------------------------------------------------------------------------


async def test_entries_pass_from_the_writer_thread_to_the_event_loop() -> None:
    found: list[tuple[str, bytes]] = []
    publish = publish_from_thread(asyncio.get_running_loop(), lambda kind, data: found.append((kind, data)))
    entries: Sequence[Entry] = append_link(START, [FACT, FACT])
    await asyncio.to_thread(publish, entries)
    await asyncio.sleep(0)
    assert [kind for kind, _ in found] == ["audit", "audit"]
    assert json.loads(found[1][1]) == as_json(entries[1])


def test_entries_after_the_event_loop_has_closed_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    publish = publish_from_thread(loop, lambda *_: None)
    loop.close()
    publish(append_link(START, [FACT]))


async def test_events_without_readers_are_dropped() -> None:
    async with a_world() as world:
        broadcast = world.app.state.broadcast
        for _ in range(100):
            broadcast.send("audit", b"{}")
        assert not broadcast._ring


# --- a daemon of its own --------------------------------------------------------------------------------


def test_a_daemon_records_everything_from_its_start_to_its_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with a_daemon(tmp_path) as (daemon, url), reached(url, daemon) as client:
        client.get("/services/progress/1?wait=30", timeout=40)
        with client.stream("GET", "/services/events") as events:
            lines = events.iter_lines()
            next(lines)
            stopped = client.post("/services/stop/web")
            # Durable before the reply, so it is there without any waiting.
            (entry,) = read(state, Query(action="stop"))
            assert (entry.event.target, entry.event.generation) == ("web", stopped.json()["generation"])
            assert next(line for line in lines if line == "event: audit")
        client.get("/services/progress/2?wait=30", timeout=40)
        groups = tmp_path / "desired-state" / "groups.yaml"
        groups.write_text("groups:\n  web: on\n")
        wait_until(lambda: len(read(state, Query(action="edit"))) == 2)
        groups.write_text("groups:\n  web: hunter2\n")
        wait_until(lambda: len(read(state, Query(action="edit"))) == 3)
        wait_until(lambda: len(read(state, Query(action="generation_end"))) >= 3)
    found = [(e.event.action, e.event.target, e.event.result, e.event.user) for e in read(state, Query())]
    assert found[0][:1] + found[0][2:] == ("daemon_start", "done", "daemon")
    assert found[-1] == ("daemon_stop", "", "done", "daemon")
    for expected in (
        ("edit", "desired-state", "accepted", "file"),
        ("container_create", "web", "done", "loop"),
        ("container_start", "web", "done", "loop"),
        ("generation_end", "1", "converged", "loop"),
        ("stop", "web", "accepted", "anonymous"),
        ("container_stop", "web", "done", "loop"),
        ("generation_end", "2", "converged", "loop"),
        ("edit", "desired-state", "refused", "file"),
    ):
        assert expected in found
    assert found.index(("stop", "web", "accepted", "anonymous")) < found.index(
        ("container_stop", "web", "done", "loop")
    )
    assert verify(state).problems == ()
    assert "hunter2" not in str(read(state, Query()))


def test_kill_9_loses_no_acknowledged_change(tmp_path: Path) -> None:
    answered = []
    with a_daemon(tmp_path) as (daemon, url), reached(url, daemon) as client:
        for number in range(30):
            action = "start" if number % 2 else "stop"
            answered.append((action, client.post(f"/services/{action}/web").json()["generation"]))
        daemon.kill()
        daemon.wait()
    state = tmp_path / "state"
    recorded = {(e.event.action, e.event.generation) for e in read(state, Query(limit=1000))}
    assert set(answered) <= recorded
    assert verify(state).problems == ()
