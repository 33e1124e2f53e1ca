"""The page: size, keyboard, touch, screen readers, lost connection, missing key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser.conftest import Open
from tests.support.fixtures.simulated_daemons import GROUPS, simulated_daemon, write_many
from tests.support.harness.chromium import BrowserWindow
from tests.support.harness.daemon import ROOT, Daemon, free_port

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
PLACES = (
    "#/groups?open=kafka,kafka/kafka,-",
    "#/map?services=1&group=kafka",
    "#/memory",
    "#/history",
    "#/audit",
)


# --- all views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(imaginary: Daemon, visit: Open, scheme: str) -> None:
    window = visit(imaginary, color_scheme=scheme, bypass_csp=True)
    window.page.add_script_tag(path=str(AXE))
    found = _axe(window.page)
    for place in PLACES:
        window.go(place)
        found += _axe(window.page)
    window.page.keyboard.press("1")
    window.switch("analytics").click()
    expect(window.group("analytics").locator(".preview .planned")).not_to_be_empty()
    found += _axe(window.page)
    window.page.keyboard.press("Escape")
    window.page.keyboard.press("?")
    found += _axe(window.page)
    assert found == []


def _axe(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        """async () => {
          const { violations } = await axe.run(document, { resultTypes: ["violations"] });
          const text = (node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`;
          return violations.filter((one) => one.impact !== "minor").map((one) =>
            `${location.hash} ${one.impact} ${one.id}: ${one.nodes.map(text).join(" | ")}`);
        }"""
    )
    return found


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_element_overflows(imaginary: Daemon, visit: Open, width: int) -> None:
    window = visit(imaginary, size=(width, 740))
    for place in PLACES:
        window.go(place)
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width, place


def test_page_is_small_self_hosted_and_has_a_strict_policy(imaginary: Daemon, visit: Open) -> None:
    window = visit(imaginary, load=False)
    sizes: dict[str, int] = {}
    window.page.on("response", lambda answer: sizes.update({answer.url: _size(answer)}))
    answer = window.page.goto(window.url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    window.group("kafka").wait_for()
    window.page.wait_for_load_state("load")
    assert sum(sizes.values()) < 150_000
    assert {url.split("/")[2] for url in window.requests} == {imaginary.url.split("/")[2]}
    page = (ROOT / "dashboard" / "index.html").read_text()
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src=)| on\w+=", page)
    shipped = [f for f in (ROOT / "dashboard").rglob("*") if f.suffix in {".js", ".css", ".html", ".svg"}]
    assert sum(f.stat().st_size for f in shipped) < 150_000, "nothing is loaded later"


def _size(answer: Response) -> int:
    return len(answer.body()) if "/services/dashboard" in answer.url else 0


# --- keyboard ---------------------------------------------------------------------------------------------


def test_page_works_without_a_mouse(imaginary: Daemon, visit: Open) -> None:
    window = visit(imaginary)
    keys = window.page.keyboard
    keys.press("j")
    expect(window.switch("kafka")).to_be_focused()
    keys.press("Enter")
    expect(window.service("zookeeper")).to_be_visible()
    expect(window.page, "a link shows the same").to_have_url(re.compile(r"#/groups\?open=kafka$"))
    keys.press("j")
    expect(window.service("zookeeper").get_by_role("button").first).to_be_focused()
    keys.press("k")
    keys.press("Enter")
    expect(window.service("zookeeper")).to_have_count(0)
    for _ in range(4):
        keys.press("j")
    expect(window.switch("monitoring")).to_be_focused()
    keys.press("Space")
    expect(window.state("monitoring")).to_have_text("converged")
    expect(window.switch("monitoring")).to_be_focused()
    keys.press("Space")
    expect(window.state("monitoring")).to_have_text("stopped")
    keys.press("/")
    keys.type("minio")
    expect(window.service("minio")).to_be_visible()
    expect(window.page.locator("[data-group]")).to_have_count(1)
    keys.press("Escape")
    expect(window.page.locator("[data-group]")).to_have_count(7)
    keys.press("Escape")
    keys.press("?")
    expect(window.page.get_by_role("dialog")).to_contain_text("next and previous row")
    keys.press("Escape")
    expect(window.page.get_by_role("dialog")).to_have_count(0)
    keys.press("2")
    expect(window.page.locator(".node")).to_have_count(7)


def test_map_leads_to_a_group(imaginary: Daemon, visit: Open) -> None:
    window = visit(imaginary, "#/map")
    expect(window.page.locator(".edge")).to_have_count(5)
    window.page.locator('[data-node="storage"]').click()
    expect(window.group("storage")).to_contain_text("needs kafka ✓")
    window.page.get_by_label("show services").check()
    expect(window.page.locator('[data-node="storage"]')).to_contain_text("kafka-consumer")


# --- without a connection, without a key ----------------------------------------------------------------


def test_lost_connection_is_shown_and_recovers(folder: Path, visit: Open) -> None:
    port = free_port()
    with simulated_daemon(folder) as daemon:
        daemon.start(port=port)
        window = visit(daemon, "#/groups?open=kafka")
        window.is_well()
        daemon.kill()
        expect(window.notice("lost")).to_contain_text("No answer from the daemon")
        expect(window.page.locator("#overall")).to_have_text("connection lost")
        daemon.start(port=port)
        expect(window.notice("lost")).to_have_count(0)
        window.is_well()
        expect(window.service("kafka")).to_be_visible()


@pytest.fixture
def locked(folder: Path) -> Iterator[tuple[Daemon, str, str]]:
    """A daemon with the keys of an operator and a viewer."""
    with simulated_daemon(folder) as daemon:
        keys = [_key(daemon, "ann", "operator"), _key(daemon, "wall", "viewer")]
        daemon.start()
        yield daemon, keys[0], keys[1]


def _key(daemon: Daemon, name: str, role: str) -> str:
    made = daemon.cli("key", "add", name, "--role", role, "--state-dir", str(daemon.state))
    return made.stdout.split()[-1]


def test_key_is_requested_and_stored_out_of_reach_of_scripts(
    locked: tuple[Daemon, str, str], visit: Open
) -> None:
    daemon, operator, viewer = locked
    window = visit(daemon, load=False)
    window.page.goto(window.url)
    field = window.page.get_by_label("API key")
    field.fill("wrong")
    window.page.get_by_role("button", name="Sign in").click()
    expect(window.page.get_by_role("alert")).to_contain_text("Invalid API key")
    field.fill(operator)
    window.page.keyboard.press("Enter")
    window.group("kafka").wait_for()
    expect(window.page.get_by_text("ann")).to_be_visible()
    cookie = window.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    kept = window.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert operator not in kept
    window.switch("monitoring").click()
    expect(window.state("monitoring")).to_have_text("converged")
    window.page.get_by_role("button", name="Sign out").click()
    expect(window.page.get_by_label("API key")).to_be_visible()
    expect(window.page.locator("[data-group]")).to_have_count(0)
    _only_looks(window, viewer)


def _only_looks(window: BrowserWindow, viewer: str) -> None:
    window.page.get_by_label("API key").fill(viewer)
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_text("reads only")).to_be_visible()
    expect(window.switch("kafka")).to_be_disabled()


# --- a hundred groups -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("crowd")
    write_many(folder / "desired")
    with simulated_daemon(folder, desired=folder / "desired") as daemon:
        daemon.start().converged(within=60)
        yield daemon


def test_thousand_services_are_updated_in_place(crowd: Daemon, visit: Open) -> None:
    window = visit(crowd, "#/groups?open=group-000")
    expect(window.page.locator("[data-group]")).to_have_count(GROUPS)
    window.is_well()
    window.page.evaluate("document.querySelectorAll('[data-group]').forEach((card, i) => { card.mark = i; })")
    window.switch("group-003").click()
    expect(window.state("group-003")).to_have_text("stopped")
    window.switch("group-003").click()
    expect(window.state("group-003")).to_have_text("converged")
    expect(window.switch("group-003")).to_be_focused()
    marks = window.page.evaluate("[...document.querySelectorAll('[data-group]')].map((card) => card.mark)")
    assert marks == list(range(GROUPS))


def test_a_cookie_that_reached_another_port_opens_nothing(
    locked: tuple[Daemon, str, str], visit: Open
) -> None:
    daemon, operator, _ = locked
    window = visit(daemon, load=False)
    window.page.goto(window.url)
    window.page.get_by_label("API key").fill(operator)
    window.page.keyboard.press("Enter")
    window.group("kafka").wait_for()
    # The stream carries the token, and another tab has it, too.
    expect(window.page.get_by_text("ann")).to_be_visible()
    other = window.context.new_page()
    other.goto(window.url)
    expect(other.locator("[data-group]").first).to_be_visible()
    stolen = {"cookie": "; ".join(f"{c['name']}={c['value']}" for c in window.context.cookies())}
    base = daemon.url
    answers = [
        httpx.get(f"{base}/services/status", headers=stolen),
        httpx.post(f"{base}/services/stop/kafka", headers={**stolen, "origin": base}),
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
