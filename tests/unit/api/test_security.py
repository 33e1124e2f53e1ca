"""Checks of every request (Host, Origin, size) and headers of every response."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.context import Settings
from api.middleware.security import MAX_BODY
from tests.support.fixtures.api import a_world, desired

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1:8000",
        "127.1.2.3",
        "[::1]:8000",
        "[::1]",
    ],
)
async def test_loopback_names_are_accepted(host: str) -> None:
    async with a_world() as world:
        assert (await world.client.get("/services/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
    ],
)
async def test_other_names_are_misdirected(host: str) -> None:
    async with a_world() as world:
        for path in ("/services/status", "/healthz", "/docs", "/nowhere"):
            answer = await world.client.get(path, headers={"host": host})
            assert (answer.status_code, answer.json()["reason"]) == (421, "foreign_host")


@pytest.mark.parametrize("host", ["192.168.0.7", "192.168.0.7:8000", "[fe80::1]:80", ""])
async def test_probes_answer_without_a_name_and_nothing_else_does(host: str) -> None:
    async with a_world(metrics=True) as world:
        for path in ("/healthz", "/readyz", "/metrics", "/healthz?cache=1"):
            assert (await world.client.get(path, headers={"host": host})).status_code == 200
            assert (await world.client.options(path, headers={"host": host})).status_code == 204
        for method, path in (("GET", "/services/status"), ("GET", "/docs"), ("POST", "/healthz")):
            answer = await world.client.request(method, path, headers={"host": host})
            assert (answer.status_code, answer.json()["reason"]) == (421, "foreign_host")


async def test_the_bound_host_and_configured_names_are_accepted() -> None:
    async with a_world(
        settings=Settings(host="192.168.0.7", own=("alpr.local",), names=("Box.local",))
    ) as world:
        for host, status in (
            ("192.168.0.7:8000", 200),
            ("box.local:8000", 200),
            ("alpr.local:8000", 200),
            ("local", 421),
            ("192.168.0.8", 421),
        ):
            assert (await world.client.get("/docs", headers={"host": host})).status_code == status


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
async def test_bound_to_every_address_any_address_is_accepted_but_no_name(bound: str) -> None:
    async with a_world(settings=Settings(host=bound)) as world:
        for host, status in (("192.168.0.7:8000", 200), ("[fe80::1]:8000", 200), ("evil.example", 421)):
            assert (await world.client.get("/healthz", headers={"host": host})).status_code == status


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://localhost:3000",
        "https://localhost:8000.evil.example",
        "localhost:8000",
        "",
    ],
)
async def test_a_page_of_another_origin_can_not_write(origin: str) -> None:
    async with a_world() as world:
        for method, path in (("POST", "/services/start/kafka"), ("PUT", "/services/groups/kafka")):
            answer = await world.client.request(method, path, headers={"origin": origin})
            assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_origin")
        assert (await world.client.get("/services/status", headers={"origin": origin})).status_code == 200
    assert world.writer.written == []


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("box.local", "https://box.local"),
        ("127.0.0.1:8000", "https://box.local"),
    ],
)
async def test_pages_of_this_daemon_can_write(host: str, origin: str) -> None:
    async with a_world(settings=Settings(names=("box.local",))) as world:
        answer = await world.client.post("/services/start/kafka", headers={"host": host, "origin": origin})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("sm.example.org", "https://sm.example.org:8443", True),  # nginx: Host $host
        ("sm.example.org:443", "https://sm.example.org:8443", True),  # port mapping 8443:443
        ("127.0.0.1:8000", "https://sm.example.org:8443", True),  # Apache without ProxyPreserveHost
        ("sm.example.org", "https://evil.example:8443", False),
        ("sm.example.org", "https://sm.example.org.evil.example", False),
        ("fixed.example.org", "https://fixed.example.org:8443", True),
        ("fixed.example.org:8443", "https://fixed.example.org:8443", True),
        ("fixed.example.org", "https://fixed.example.org:3000", False),
        ("127.0.0.1:8000", "https://fixed.example.org", False),
        ("127.0.0.1:8000", "https://standard.example.org", True),
        ("127.0.0.1:8000", "http://standard.example.org", False),
    ],
)
async def test_a_configured_name_may_write_from_any_port_or_from_its_own(
    host: str, origin: str, *, allowed: bool
) -> None:
    names = ("sm.example.org", "fixed.example.org:8443", "standard.example.org:443")
    async with a_world(settings=Settings(names=names)) as world:
        answer = await world.client.post("/services/start/kafka", headers={"host": host, "origin": origin})
    assert answer.status_code == (202 if allowed else 403)


async def test_another_port_of_this_machine_is_another_origin() -> None:
    async with a_world(settings=Settings(own=("box.local",))) as world:
        for origin in ("http://box.local", "http://box.local:3000"):
            headers = {"host": "box.local:8000", "origin": origin}
            answer = await world.client.post("/services/start/kafka", headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_origin")


async def test_bodies_are_limited_despite_a_wrong_content_length() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * (MAX_BODY // 10)

    async with a_world() as world:
        said = await world.client.put("/services/groups/kafka", content=b" " * (MAX_BODY + 1), headers=JSON)
        streamed = await world.client.put("/services/groups/kafka", content=chunks(), headers=JSON)
        read = await world.client.request("GET", "/services/status", headers={"content-length": "9" * 30})
        most = b'{"state": "on"' + b" " * (MAX_BODY - 15) + b"}"
        fits = await world.client.put("/services/groups/kafka", content=most, headers=JSON)
    for answer in (said, streamed, read):
        assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
    assert fits.status_code == 202


async def test_every_response_has_the_security_headers() -> None:
    async with a_world(desired()) as world:
        answers = [
            await world.client.get("/services/status"),
            await world.client.get("/services/status/nope"),
            await world.client.get("/nowhere"),
            await world.client.get("/healthz", headers={"host": "evil.example"}),
            await world.client.post("/services/start/storage"),
        ]
        page = await world.client.get("/docs")
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "script-src" not in page.headers["content-security-policy"]
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/services/starts/kafka", 404, "not_found"),
        ("GET", "/services/start/kafka", 405, "method_not_allowed"),
        ("DELETE", "/services/status", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_are_problems(
    method: str, path: str, status: int, reason: str
) -> None:
    async with a_world() as world:
        answer = await world.client.request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (status, status, reason)
    assert answer.json()["title"]
    assert ("allow" in answer.headers) == (status == 405)
