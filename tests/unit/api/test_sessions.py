"""Sessions of the dashboard: they begin and end with a key and work only on pages of this daemon."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from api.context import Settings
from api.middleware.sessions import LASTS, Sessions
from tests.support.fixtures.api import a_world
from tests.support.fixtures.auth import ORIGIN, locked, x
from tests.unit.auth.test_keys import Clock


def _use(client: httpx.AsyncClient, begun: httpx.Response) -> None:
    client.headers["x-session-token"] = begun.json()["token"]


# --- sessions -------------------------------------------------------------------------------------------


async def test_a_browser_signs_in_and_out(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        client = world.client
        nobody = (await client.get("/services/session")).json()
        assert nobody == {"required": True, "name": None, "role": None, "expires_at": None, "token": None}
        begun = await client.post("/services/session", headers={**x(world.ann), **ORIGIN})
        assert (begun.status_code, begun.json()["name"], begun.json()["role"]) == (200, "ann", "operator")
        cookie = begun.headers["set-cookie"]
        for part in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LASTS}"):
            assert part in cookie
        assert "Secure" not in cookie
        assert world.ann not in begun.text + cookie
        # Browsers send the cookie to every port of this host; without the page's token it opens nothing.
        assert (await client.get("/services/status")).status_code == 401
        assert (await client.post("/services/stop/kafka", headers=ORIGIN)).status_code == 401
        assert (await client.get("/services/session")).json()["name"] is None
        wrong = {"x-session-token": "x" * 43}
        assert (await client.get("/services/status", headers=wrong)).status_code == 401
        _use(client, begun)
        assert begun.json()["token"] not in cookie
        # A page at another port may plant cookies of the same name before the right one.
        value = cookie.partition("=")[2].partition(";")[0]
        planted = {"cookie": f"service_manager_session=planted; service_manager_session={value}"}
        assert (await client.get("/services/status", headers=planted)).status_code == 200
        assert (await client.get("/services/session")).json()["name"] == "ann"
        assert (await client.get("/services/status")).status_code == 200
        assert (await client.post("/services/stop/kafka", headers=ORIGIN)).status_code == 202
        assert world.writer.written == [("ann", "stop kafka")]
        ended = await client.delete("/services/session", headers=ORIGIN)
        assert "Max-Age=0" in ended.headers["set-cookie"]
        client.cookies.set("service_manager_session", cookie.partition("=")[2].partition(";")[0])
        assert (await client.get("/services/status")).status_code == 401


async def test_a_session_needs_a_correct_key(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        assert (await world.client.post("/services/session")).status_code == 401
        wrong = [
            (await world.client.post("/services/session", headers=x("no"))).status_code for _ in range(12)
        ]
        assert wrong == [403] * 10 + [429] * 2
        foreign = {**x(world.ann), "origin": "http://evil.example"}
        assert (await world.client.post("/services/session", headers=foreign)).status_code == 403
        assert not world.client.cookies


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"sec-fetch-site": "same-origin"}, 202),
        (ORIGIN, 202),
    ],
)
async def test_a_cookie_can_write_only_from_pages_of_this_daemon(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with locked(tmp_path) as world:
        _use(world.client, await world.client.post("/services/session", headers=x(world.ann)))
        assert (await world.client.post("/services/stop/kafka", headers=headers)).status_code == status


async def test_a_session_ends_with_its_key_and_follows_its_role(tmp_path: Path) -> None:
    async with locked(tmp_path) as world:
        _use(world.client, await world.client.post("/services/session", headers=x(world.eye)))
        assert (await world.client.get("/services/status")).status_code == 200
        assert (await world.client.post("/services/stop/kafka", headers=ORIGIN)).status_code == 403
        world.file.revoke("eye")
        world.later()
        assert (await world.client.get("/services/status")).status_code == 401
        assert (await world.client.get("/services/session")).json()["name"] is None


@pytest.mark.parametrize("client", [("10.0.0.8", 1), ("10.0.0.9", 1), ("127.0.0.1", 1)])
async def test_behind_a_named_proxy_the_cookie_is_secure_and_below_its_path(
    tmp_path: Path, client: tuple[str, int]
) -> None:
    settings = Settings(proxies=(ip_network("10.0.0.8"),))
    async with locked(tmp_path, client=client, settings=settings) as world:
        headers = {**x(world.ann), "x-forwarded-proto": "https", "x-forwarded-prefix": "/sm"}
        begun = await world.client.post("/services/session", headers=headers)
    named = client[0] == "10.0.0.8"
    assert ("Secure" in begun.headers["set-cookie"]) == named
    assert ("Path=/sm/;" if named else "Path=/;") in begun.headers["set-cookie"]


async def test_without_keys_signing_in_sets_no_cookie() -> None:
    async with a_world() as world:
        begun = await world.client.post("/services/session")
        assert begun.json() == {
            "required": False,
            "name": "anonymous",
            "role": "operator",
            "expires_at": None,
            "token": None,
        }
        assert "set-cookie" not in begun.headers


def test_sessions_expire_and_are_bounded() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    mine = sessions.begin(b"mine")
    theirs = [sessions.begin(b"theirs") for _ in range(200)]
    assert len(sessions) == 65
    assert sessions.digest(*mine) == b"mine"
    assert sessions.digest(*theirs[0]) is None
    assert sessions.digest(*theirs[-1]) == b"theirs"
    for number in range(3000):
        sessions.begin(str(number).encode())
    assert len(sessions) == 1024
    last = sessions.begin(b"last")
    clock.now += LASTS
    assert sessions.digest(*last) is None
    assert sessions.digest("", "") is None
