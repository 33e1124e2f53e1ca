"""Authentication: keys, roles, rate limits for wrong keys, and source addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.middleware.auth import caller_of, is_open, rate_limit_key, source_of
from api.middleware.forwarded import ForwardedMiddleware
from api.middleware.login_limits import AttemptLimits, FailedLogins
from reconciler.auth.keys import VIEWER, KeyRing
from tests.support.fixtures.api import a_world, desired, run_other_tasks
from tests.support.fixtures.auth import READS, locked, x
from tests.unit.auth.test_keys import AT, Clock

# --- keys and roles -------------------------------------------------------------------------------------


async def test_without_any_key_every_caller_is_an_operator() -> None:
    async with a_world() as world:
        assert (await world.client.get("/services/status")).status_code == 200
        assert (await world.client.post("/services/start/kafka", headers=x("whatever"))).status_code == 202
    assert world.writer.written == [("anonymous", "start kafka")]


@pytest.mark.parametrize("path", READS)
async def test_with_a_key_reads_need_one_too(tmp_path: Path, path: str) -> None:
    async with locked(tmp_path) as world:
        answer = await world.client.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (401, "missing_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        for key in (world.ann, world.eye):
            for headers in (x(key), {"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
                assert (await world.client.get(path, headers=headers)).status_code in {200, 404}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/docs/swagger-ui.css"])
async def test_open_paths_need_no_key(tmp_path: Path, path: str) -> None:
    async with locked(tmp_path) as world:
        assert (await world.client.get(path)).status_code == 200
        assert (await world.client.get(path, headers=x("wrong"))).status_code == 200


async def test_the_dashboard_page_needs_no_key_but_its_data_does(tmp_path: Path) -> None:
    from api.context import Settings

    page = tmp_path / "page"
    (page / "js").mkdir(parents=True)
    (page / "index.html").write_text("<p>here</p>")
    (page / "js" / "main.js").write_text("export {}")
    async with locked(tmp_path, settings=Settings(dashboard=page)) as world:
        for path in ("/services/dashboard", "/services/dashboard/js/main.js"):
            assert (await world.client.get(path)).status_code == 200
        assert (await world.client.get("/services/dashboard/")).headers["location"] == "../dashboard"
        for path in (
            "/services/dashboard/../status",
            "/services/dashboardx",
            "/services/dashboard/%2e%2e/status",
        ):
            assert (await world.client.get(path)).status_code in {401, 404}
        assert (await world.client.get("/services/events")).status_code == 401


@pytest.mark.parametrize(
    "path", ["/docsx", "/healthz/", "//healthz", "/services/sessions", "/services/status/../../docs"]
)
def test_no_other_path_is_open(path: str) -> None:
    assert not is_open(path)


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/services/status", "/services/start/kafka"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_every_method_needs_a_key(tmp_path: Path, method: str, path: str) -> None:
    async with locked(tmp_path) as world:
        answer = await world.client.request(method, path)
    assert answer.status_code == (405 if is_open(path) else 401)
    assert world.writer.written == []


WRONG = ["", " ", "sm_", "ann", "nope", "ANN", "\x7f", "sm_" + "a" * 52, "a" * 5000]


@pytest.mark.parametrize("key", WRONG)
async def test_a_wrong_key_is_refused_as_such(tmp_path: Path, key: str) -> None:
    async with locked(tmp_path) as world:
        headers = [x(key)] if key.strip() else []
        for given in (*headers, {"authorization": f"Bearer {key or 'x'}"}):
            answer = await world.client.get("/services/status", headers=given)
            assert (answer.status_code, answer.json()["detail"]) == (403, "Invalid API key")


async def test_a_nearly_correct_key_is_wrong(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        for key in (world.ann[:-1], world.ann + "a", world.ann.upper(), world.ann.removeprefix("sm_")):
            assert (await world.client.get("/services/status", headers=x(key))).status_code == 403


async def test_two_different_keys_are_wrong_and_two_equal_ones_are_not(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        for second, status in ((world.eye, 403), ("nope", 403), (world.ann, 200)):
            headers = [("x-api-key", world.ann), ("x-api-key", second)]
            assert (await world.client.get("/services/status", headers=headers)).status_code == status


async def test_credentials_for_a_proxy_are_no_key(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        basic = {"authorization": "Basic YTpi"}
        assert (await world.client.get("/services/status", headers=basic)).status_code == 401
        assert (
            await world.client.get("/services/status", headers={**basic, **x(world.eye)})
        ).status_code == 200


async def test_a_viewer_can_read_but_not_write(tmp_path: Path) -> None:
    async def plan(_: object) -> Any:
        from reconciler.generations.preview import PreviewResult

        return PreviewResult()

    async with locked(tmp_path, preview=plan) as world:
        for method, path in (
            ("POST", "/services/stop/kafka"),
            ("PUT", "/services/groups/kafka"),
            ("DELETE", "/services/status"),
        ):
            answer = await world.client.request(method, path, headers=x(world.eye))
            assert (answer.status_code, answer.json()["reason"]) == (403, "role_too_low")
        # A preview changes nothing.
        assert (await world.client.post("/services/plan", headers=x(world.eye), json={})).status_code == 200
    assert world.writer.written == []


async def test_a_change_is_recorded_with_the_name_of_the_key(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        answer = await world.client.post("/services/stop/kafka", headers=x(world.ann))
    assert answer.status_code == 202
    assert world.writer.written == [("ann", "stop kafka")]


async def test_keys_added_and_revoked_count_within_a_second(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        assert (await world.client.get("/services/status", headers=x(world.ann))).status_code == 200
        world.file.revoke("ann")
        bob = world.file.add("bob", VIEWER, at=AT)
        world.later()
        assert (await world.client.get("/services/status", headers=x(world.ann))).status_code == 403
        assert (await world.client.get("/services/status", headers=x(bob))).status_code == 200


async def test_a_body_is_read_only_with_a_correct_key(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(1)
            yield b" " * 10_000

    read: list[int] = []
    async with locked(tmp_path) as world:
        answer = await world.client.put("/services/groups/kafka", content=chunks())
    assert (answer.status_code, read) == (401, [])


async def test_mistakes_in_files_are_shown_only_with_a_key(tmp_path: Path) -> None:
    from reconciler.errors import Mistake
    from tests.support.fixtures.api import a_snapshot

    broken = a_snapshot(desired(), errors=(Mistake("groups.yaml", 1, 1, "hunter2"),))
    async with a_world(snapshot=broken) as world:
        assert "hunter2" in (await world.client.get("/readyz")).text
    async with locked(tmp_path, snapshot=broken) as closed:
        answer = await closed.client.get("/readyz")
    assert (answer.status_code, "hunter2" in answer.text) == (503, False)


async def test_an_event_stream_ends_when_its_key_is_revoked(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        events: list[bytes] = []
        headers = [(b"host", b"localhost"), (b"x-api-key", world.eye.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/services/events",
            "raw_path": b"/services/events",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
            "http_version": "1.1",
        }

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            events.append(message.get("body", b""))

        task = asyncio.create_task(world.app(scope, receive, send))  # type: ignore[arg-type]
        await run_other_tasks()
        broadcast = world.app.state.broadcast
        broadcast.send("audit", b'{"id":1}')
        async with asyncio.timeout(10):
            while b"event: audit" not in b"".join(events):
                await asyncio.sleep(0.01)
        world.file.revoke("eye")
        world.later()
        broadcast.send("audit", b'{"id":2}')
        await asyncio.wait_for(task, 5)
        assert b'"id":2' not in b"".join(events)


# --- wrong keys by the dozen ----------------------------------------------------------------------------


async def test_wrong_keys_are_rate_limited_and_a_correct_key_is_not(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        statuses = [
            (await world.client.get("/services/status", headers=x(f"guess-{n}"))).status_code
            for n in range(40)
        ]
        assert statuses == [403] * 10 + [429] * 30
        slowed = await world.client.get("/services/status", headers=x("guess"))
        assert 1 <= int(slowed.headers["retry-after"]) <= 60
        assert slowed.json()["reason"] == "too_many_attempts"
        assert (await world.client.get("/services/status", headers=x(world.ann))).status_code == 200
        assert (await world.client.get("/services/status")).status_code == 401


def test_attempts_are_refilled_over_time() -> None:
    clock = Clock()
    attempts = FailedLogins(AttemptLimits(burst=3, refill=10.0), clock)
    assert [attempts.failed("a") for _ in range(5)] == [0, 0, 0, 10, 10]
    clock.now += 9.0
    assert attempts.failed("a") == 1
    clock.now += 1.0
    assert [attempts.failed("a"), attempts.failed("a")] == [0, 10]
    assert attempts.failed("b") == 0
    clock.now += 1000.0
    assert [attempts.failed("a") for _ in range(4)] == [0, 0, 0, 10]


def test_the_number_of_remembered_addresses_is_bounded() -> None:
    attempts = FailedLogins(AttemptLimits(most=50))
    for number in range(1000):
        attempts.failed(str(number))
    assert len(attempts) == 50


async def test_a_daemon_that_needs_a_key_and_has_none_serves_only_open_pages(tmp_path: Path) -> None:
    """As with --allowed-host and without a key: it reconciles, and no request reads or writes."""
    async with a_world(keys=KeyRing(tmp_path, always=True)) as world:
        for method, path in (("GET", "/services/status"), ("POST", "/services/start/kafka")):
            answer = await world.client.request(method, path)
            assert (answer.status_code, answer.json()["reason"]) == (401, "missing_key")
            assert "--allowed-host" in answer.json()["remedy"]
        assert (await world.client.get("/healthz")).status_code == 200


# --- where a request comes from -------------------------------------------------------------------------


async def a_scope(client: tuple[str, int] | None, *forwarded: str) -> dict[str, Any]:
    """The scope of a request after the middleware; 127.0.0.1 and 10.9.0.0/16 are named proxies."""
    headers = [(b"x-forwarded-for", f.encode()) for f in forwarded]
    scope: dict[str, Any] = {"type": "http", "client": client, "headers": headers, "path": "/"}

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        pass

    proxies = (ip_network("127.0.0.1"), ip_network("10.9.0.0/16"))
    await ForwardedMiddleware(app, proxies=proxies)(scope, _receive, _send)
    return scope


async def _receive() -> Message:
    raise AssertionError("unused")


async def _send(_message: Message) -> None:
    raise AssertionError("unused")


@pytest.mark.parametrize(
    ("client", "forwarded", "source"),
    [
        (("192.168.0.7", 1), (), "192.168.0.7"),
        (("192.168.0.7", 1), ("10.0.0.1",), "192.168.0.7"),
        (("127.0.0.1", 1), (), "127.0.0.1"),
        (("127.0.0.1", 1), ("10.0.0.1",), "10.0.0.1 via 127.0.0.1"),
        (("127.0.0.1", 1), ("6.6.6.6, 10.0.0.1",), "10.0.0.1 via 127.0.0.1"),
        (("127.0.0.1", 1), ("6.6.6.6", "10.0.0.1"), "10.0.0.1 via 127.0.0.1"),
        (("127.0.0.1", 1), ("10.0.0.1, 10.9.0.2",), "10.0.0.1 via 127.0.0.1"),
        (("10.9.0.3", 1), ("6.6.6.6", "10.0.0.1, 10.9.0.2"), "10.0.0.1 via 10.9.0.3"),
        (("::ffff:10.9.0.3", 1), ("2001:db8::1",), "2001:db8::1 via 10.9.0.3"),
        (("127.0.0.1", 1), ("10.0.0.1:4711",), "10.0.0.1 via 127.0.0.1"),
        (("127.0.0.2", 1), ("10.0.0.1",), "127.0.0.2"),
        (("127.0.0.1", 1), ("6.6.6.6, <script>",), "127.0.0.1"),
        (("::ffff:10.0.0.2", 1), (), "10.0.0.2"),
        (("fe80::1%eth0", 1), (), "fe80::1"),
        (None, (), "local"),
    ],
)
async def test_the_source_is_the_peer_with_the_address_that_a_named_proxy_reports(
    client: tuple[str, int] | None, forwarded: tuple[str, ...], source: str
) -> None:
    scope = await a_scope(client, *forwarded)
    assert source_of(scope) == caller_of(scope).source == source


def test_addresses_of_one_ipv6_network_share_a_limit() -> None:
    assert (
        rate_limit_key("2001:db8:1:2:aaaa::1") == rate_limit_key("2001:db8:1:2::ffff") == "2001:db8:1:2::/64"
    )
    assert rate_limit_key("2001:db8:1:3::1") != rate_limit_key("2001:db8:1:2::1")
    assert rate_limit_key("10.0.0.1 via 127.0.0.1") == "10.0.0.1 via 127.0.0.1"
    assert rate_limit_key("::1") == "::1"
