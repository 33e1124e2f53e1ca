"""The dashboard beside a real engine: what is switched there runs, what goes wrong there is told."""

from __future__ import annotations

import re

from playwright.sync_api import APIResponse, Route, expect

from tests.browser.conftest import Open
from tests.support.harness.chromium import BrowserWindow
from tests.support.harness.sandbox import PROJECT, Sandbox


def test_a_switch_starts_and_stops_containers_and_can_be_taken_back(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon)
    window.is_well()
    expect(window.group("extra").locator(".count")).to_have_text("1/1")
    sent = window.hold("**/services/stop/extra*")
    mark = yard.recorder.mark()
    window.switch("extra").click()
    expect(window.switch("extra"), "shown before the answer").to_have_attribute("aria-checked", "false")
    expect(window.state("extra")).to_have_text("to be off")
    window.has_asked(sent)
    sent[0].continue_()
    expect(window.state("extra")).to_have_text("stopped")
    assert "extra: off" in (yard.desired / "groups.yaml").read_text()
    # The offer to undo it lasts for ten seconds.
    window.page.get_by_role("button", name="Undo").click()
    stopped = [event.service for event in yard.recorder.touched(mark, PROJECT) if event.action == "die"]
    assert stopped == ["cache"]
    expect(window.state("extra")).to_have_text("converged")
    yard.is_true()
    assert (yard.desired / "groups.yaml").read_text().count("on ") == 1, "the comment is where it was"


def test_what_else_a_switch_takes_along_is_shown_first(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon)
    generation = yard.daemon.get("/services/status")["generation"]
    window.switch("base").click()
    preview = window.group("base").locator(".preview")
    expect(preview).to_contain_text("base is needed by app and front, which are on")
    expect(preview).to_contain_text("stops 5 containers")
    expect(preview).to_contain_text("The daemon would stop")
    window.page.keyboard.press("Escape")
    expect(preview).to_have_count(0)
    assert yard.daemon.get("/services/status")["generation"] == generation
    window.switch("base").click()
    preview.get_by_role("button", name="Switch base, app and front off").click()
    expect(window.state("front")).to_have_text("stopped")
    yard.is_true({"extra"})
    window.switch("front").click()
    window.group("front").get_by_role("button", name="Switch front, base and app on").click()
    expect(window.state("front")).to_have_text("converged")
    window.is_well()
    yard.is_true()


def test_each_service_is_seen_on_its_way(yard: Sandbox, visit: Open) -> None:
    yard.switch(app=False, front=False)
    yard.daemon.converged()
    window = visit(yard.daemon, "#/groups?open=app,front")
    window.record('[data-service="web"] .line')
    api = yard.one("api")["Id"]
    with yard.proxy.hooked(lambda call: "hold" if call.path == f"/containers/{api}/start" else None):
        window.switch("app").click()
        window.switch("front").click()
        expect(window.service("web")).to_contain_text("waits for")
    expect(window.state("front")).to_have_text("converged")
    window.is_well()
    seen = window.recorded()
    places = [_first(seen, word) for word in ("absent|stopped", "waiting .*waits for", "running")]
    assert places == sorted(places), seen
    yard.is_true()


def _first(seen: list[str], pattern: str) -> int:
    return next((i for i, text in enumerate(seen) if re.search(pattern, text)), len(seen) + 1)


def test_a_killed_container_is_told_and_its_repair_is_seen(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon, "#/groups?open=extra,extra/cache")
    window.page.evaluate("document.querySelector('[data-service=cache]').mark = 1")
    container = yard.one("cache")
    with yard.proxy.hooked(lambda call: "hold" if call.path.endswith("/start") else None):
        yard.docker.kill("small-cache")
        expect(window.notice("drift")).to_contain_text("1 service differs")
        expect(window.notice("drift")).to_contain_text(re.compile("cache (should run|exited with code 137)"))
    window.is_well()
    after = yard.one("cache")
    assert after["Id"] == container["Id"]
    assert after["State"]["StartedAt"] > container["State"]["StartedAt"]
    assert window.page.evaluate("document.querySelector('[data-service=cache]').mark") == 1, "drawn in place"
    window.page.goto(f"{window.url}#/audit?by_group=extra")
    expect(window.page.locator(".log tr").filter(has_text="container start").first).to_contain_text("cache")


def test_suspension_shows_drift_and_can_be_resumed(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon, "#/groups?open=extra,extra/cache")
    window.page.get_by_role("button", name="Suspend …").click()
    window.page.get_by_label("because").fill("camera work")
    window.page.get_by_role("button", name="Suspend", exact=True).click()
    expect(window.state("extra")).to_have_text("suspended")
    yard.docker.kill("small-cache")
    expect(window.notice("suspended")).to_contain_text("camera work")
    expect(window.notice("suspended")).to_contain_text("cache exited with code 137")
    expect(window.notice("drift")).to_have_count(0)
    differences = window.service("cache").locator(".differences")
    expect(differences).to_contain_text("should run; exited with code 137")
    window.page.get_by_role("button", name="Resume").click()
    window.is_well()
    yard.is_true()


def test_held_changes_are_shown_and_applied_on_request(yard: Sandbox, visit: Open) -> None:
    services = "    services: [cache]\n"
    yard.daemon.converged(yard.edit("stack.yaml", services, f"{services}    on_change: report\n"))
    window = visit(yard.daemon)
    before = yard.one("cache")["Id"]
    yard.edit("compose.yaml", "cache-data:/data", "cache-data:/elsewhere")
    notice = window.notice("stuck-extra")
    expect(notice).to_contain_text("held back")
    assert yard.one("cache")["Id"] == before
    notice.get_by_role("button", name="Apply").click()
    expect(notice).to_have_count(0)
    window.is_well()
    assert yard.one("cache")["Id"] != before
    yard.is_true()


def test_broken_file_is_shown_with_its_line_until_it_is_corrected(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon)
    good = (yard.desired / "groups.yaml").read_text()
    yard.save("groups.yaml", good.replace("app: on", "app: onn"))
    expect(window.notice("files")).to_contain_text("groups.yaml:3")
    expect(window.notice("files")).to_contain_text("onn")
    expect(window.page.locator("#overall")).to_have_text("files invalid")
    window.switch("extra").click()
    expect(window.page.locator(".toast.red")).to_be_visible()
    assert window.switch("extra").get_attribute("aria-checked") == "true", "what was refused is not shown"
    yard.save("groups.yaml", good)
    expect(window.notice("files")).to_have_count(0)
    window.is_well()


def test_unreachable_engine_is_shown_until_it_returns(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon)
    yard.restarts += 1
    yard.engine.stop()
    expect(window.notice("engine")).to_contain_text("does not answer")
    expect(window.page.locator("#overall")).to_have_text("engine unreachable")
    yard.engine.start()
    expect(window.notice("engine")).to_have_count(0)
    window.is_well()


def test_two_browsers_see_each_others_changes(yard: Sandbox, visit: Open) -> None:
    one, other = visit(yard.daemon), visit(yard.daemon, "#/audit")
    one.switch("extra").click()
    expect(other.page.locator(".log tr").filter(has_text="stop extra").first).to_be_visible()
    other.page.keyboard.press("1")
    expect(other.state("extra")).to_have_text("stopped")
    other.switch("extra").click()
    expect(one.switch("extra")).to_have_attribute("aria-checked", "true")
    expect(one.state("extra")).to_have_text("converged")


def test_what_is_recorded_while_the_page_is_read_is_shown(yard: Sandbox, visit: Open) -> None:
    one, other = visit(yard.daemon), visit(yard.daemon, "#/audit")
    asked: list[tuple[Route, APIResponse]] = []
    one.page.route("**/services/audit?*", lambda route: asked.append((route, route.fetch())))
    one.page.keyboard.press("5")
    expect(one.page.get_by_text("Reading …")).to_be_visible()
    one.has_asked(asked)
    other.page.keyboard.press("1")
    other.switch("extra").click()
    expect(other.state("extra")).to_have_text("stopped")
    other.page.keyboard.press("5")
    entry = ".log tr"
    expect(other.page.locator(entry).filter(has_text="stop extra").first).to_be_visible()
    for route, answer in asked:
        route.fulfill(response=answer)
    expect(one.page.locator(entry).filter(has_text="stop extra").first).to_be_visible()


def test_the_log_of_a_container_is_read_followed_and_searched(yard: Sandbox, visit: Open) -> None:
    window = visit(yard.daemon, "#/groups?open=base,base/db")
    pane = window.page.get_by_role("log")
    expect(pane).to_contain_text("ready")
    expect(window.page.get_by_role("link", name="Download")).to_have_attribute("download", "db.log")
    window.page.get_by_placeholder("Search in the log").fill("ready")
    expect(pane.locator("mark").first).to_have_text("ready")
    assert all("ready" in line.lower() for line in pane.inner_text().splitlines() if line)
    window.page.get_by_placeholder("Search in the log").fill("no such thing")
    expect(window.page.get_by_text("No line has that.")).to_be_visible()


def test_the_memory_of_real_containers_is_measured(yard: Sandbox, visit: Open) -> None:
    window: BrowserWindow = visit(yard.daemon, "#/memory")
    row = window.page.locator(".memory tr").filter(has_text="base").first
    expect(row.locator("td").first).to_contain_text("MB")
    expect(window.page.locator(".memory")).to_contain_text("pilot and what it needs")
