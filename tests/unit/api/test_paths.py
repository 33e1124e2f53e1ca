"""Paths as clients and proxies send them: prefixes, slashes, odd names, extra parameters, other methods."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest

from api.context import Settings
from reconciler.controller.snapshot import Snapshot
from reconciler.model.desired import GroupState, Suspension
from tests.support.fixtures.api import WALL, a_snapshot, a_world, desired

PROXY = Settings(proxies=(ip_network("127.0.0.1"),), clock=lambda: WALL)
PREFIXED = {"x-forwarded-prefix": "/sm"}

# --- prefixes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sm/services/status", "/services/status", "/sm/services/status/"])
async def test_a_prefix_is_taken_off_whether_or_not_the_proxy_did(path: str) -> None:
    async with a_world(settings=PROXY) as world:
        assert (await world.client.get(path, headers=PREFIXED)).status_code == 200
    async with a_world(settings=Settings(root_path="/sm")) as world:
        assert (await world.client.get(path)).status_code == 200


async def test_addresses_in_responses_have_the_prefix() -> None:
    async with a_world(settings=PROXY) as world:
        write = await world.client.post("/services/start/kafka", headers=PREFIXED)
        root = await world.client.get("/sm", headers=PREFIXED)
        plain = await world.client.get("/")
    assert write.headers["location"] == "/sm/services/progress/2"
    assert root.headers["location"] == "/sm/services/dashboard"
    assert plain.headers["location"] == "services/dashboard"


async def test_the_headers_of_traefik_are_understood() -> None:
    headers = {
        "host": "box.example.org:8443",
        "origin": "https://box.example.org:8443",
        "x-forwarded-for": "10.0.0.1",
        "x-forwarded-host": "box.example.org:8443",
        "x-forwarded-port": "8443",
        "x-forwarded-prefix": "/sm",
        "x-forwarded-proto": "https",
        "x-forwarded-server": "traefik",
        "x-real-ip": "10.0.0.1",
    }
    async with a_world(settings=replace(PROXY, names=("box.example.org",))) as world:
        answer = await world.client.post("/services/start/kafka", headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (202, "/sm/services/progress/2")
    assert world.writer.edits[0].source == "10.0.0.1 via 127.0.0.1"


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/../x", "/a b", "https://evil.example", "/a//b", "/" * 300]
)
async def test_a_prefix_that_is_no_path_is_ignored(prefix: str) -> None:
    async with a_world(settings=PROXY) as world:
        headers = {"x-forwarded-prefix": prefix}
        answer = await world.client.post("/services/start/kafka", headers=headers)
    assert answer.headers["location"] == "/services/progress/2"


async def test_headers_of_an_unnamed_proxy_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with a_world() as world:
        for _ in range(3):
            answer = await world.client.post("/services/restart/kafka", headers=PREFIXED)
            assert answer.status_code == 409
        assert (await world.client.get("/sm/services/status", headers=PREFIXED)).status_code == 404
    assert caplog.text.count("--trusted-proxy") == 1


async def test_the_page_names_its_files_relative_to_itself() -> None:
    page = (Path(__file__).parents[3] / "dashboard" / "index.html").read_text()
    assert 'src="dashboard/js/boot.js"' in page
    assert '="/' not in page


# --- slashes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/services/status/", "/services/status/kafka/", "/healthz/", "/services/groups/kafka//"]
)
async def test_a_slash_at_the_end_is_dropped_without_a_redirect(path: str) -> None:
    async with a_world() as world:
        assert (await world.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/docs/", "/services/dashboard/", "/nowhere/", "/"])
async def test_no_redirect_names_a_scheme_or_host(path: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    async with a_world(settings=Settings(dashboard=tmp_path)) as world:
        answer = await world.client.get(path)
    assert "://" not in answer.headers.get("location", "")


# --- names ----------------------------------------------------------------------------------------------


def named(name: str) -> Snapshot:
    """A snapshot with one group of this name."""
    snapshot = a_snapshot(desired(1, kafka=True))
    return replace(snapshot, groups={name: replace(snapshot.groups["kafka"], name=name)})


@pytest.mark.parametrize(
    "name", ["Tools/Extra 1", "Küche & Bad", "a%2Fb", "50%", "?#", "a//b", "слой", "+ +", "/"]
)
async def test_every_name_can_be_addressed(name: str) -> None:
    quoted = quote(name, safe="")
    async with a_world(snapshot=named(name)) as world:
        for path in ("status", "groups"):
            assert (await world.client.get(f"/services/{path}/{quoted}")).status_code == 200
        answer = await world.client.post(f"/services/start/{quoted}")
    # The writer in memory knows other groups; its refusal repeats the name.
    assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_group")
    assert repr(name) in answer.json()["detail"]


async def test_a_proxy_may_decode_a_slash_in_a_name() -> None:
    async with a_world(snapshot=named("Tools/Extra 1")) as world:
        assert (await world.client.get("/services/status/Tools/Extra%201")).status_code == 200


# --- parameters and methods -----------------------------------------------------------------------------


async def test_pages_and_probes_ignore_unknown_parameters(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    async with a_world(metrics=True, settings=Settings(dashboard=tmp_path)) as world:
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/services/dashboard"):
            assert (await world.client.get(f"{path}?utm_source=x&utm_source=y")).status_code == 200
        assert (await world.client.get("/?fbclid=x")).status_code == 307
        for method, path in (("GET", "/services/status"), ("POST", "/services/start/kafka")):
            assert (await world.client.request(method, f"{path}?fbclid=x")).status_code == 422


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/services/status", "GET, HEAD, OPTIONS"),
        ("/services/start/kafka", "OPTIONS, POST"),
        ("/services/groups/kafka", "GET, HEAD, OPTIONS, PUT"),
        ("/services/session", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/docs/start.js", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_lists_the_methods(path: str, methods: str) -> None:
    async with a_world() as world:
        answer = await world.client.options(path, headers={"origin": "https://evil.example"})
        refused = await world.client.request("PATCH", path)
        missing = await world.client.options("/nowhere")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert (refused.status_code, refused.headers["allow"], missing.status_code) == (405, methods, 404)


# --- a group at one address -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        GroupState(on=True),
        GroupState(on=True, force=True),
        GroupState(on=False, suspend=Suspension(WALL + 3600, "camera work")),
        GroupState(on=True, suspend=Suspension()),
        GroupState(on=True, suspend=Suspension(WALL - 3600, "over")),
    ],
)
async def test_what_is_read_at_the_address_of_put_can_be_put(state: GroupState) -> None:
    async with a_world(desired(1, kafka=state), settings=Settings(clock=lambda: WALL)) as world:
        read = await world.client.get("/services/groups/kafka")
        again = await world.client.get(
            "/services/groups/kafka", headers={"if-none-match": read.headers["etag"]}
        )
        put = await world.client.put("/services/groups/kafka", json=read.json())
    assert read.json()["state"] == ("on" if state.on else "off")
    assert (again.status_code, put.status_code) == (
        304,
        200 if not state.suspend or state.suspended(WALL) else 202,
    )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"state": "ON"}', "application/json"),
        (b'{"state": "On"}', "application/json"),
        (b'"on"', "application/json"),
        (b"ON", "text/plain"),
        (b"on\r\n", "application/octet-stream"),
        (b"ON", "application/x-www-form-urlencoded"),
    ],
)
async def test_the_bodies_of_a_restful_switch_switch_a_group_on(body: bytes, kind: str) -> None:
    async with a_world() as world:
        headers = {"content-type": kind}
        answer = await world.client.put("/services/groups/kafka", content=body, headers=headers)
    assert answer.status_code == 202
    assert world.writer.desired.groups["kafka"].on


@pytest.mark.parametrize("body", [b'{"state": "onn"}', b'{"state": " on"}', b'"1"', b"", b"yes", b"\xff"])
async def test_other_words_are_refused(body: bytes) -> None:
    async with a_world() as world:
        for kind in ("application/json", "text/plain"):
            headers = {"content-type": kind}
            answer = await world.client.put("/services/groups/kafka", content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (422, "bad_input")
