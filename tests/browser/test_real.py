"""The dashboard with a real engine: switches start containers, faults are shown."""

from __future__ import annotations

import re

from playwright.sync_api import APIResponse, Route, expect

from tests.browser.conftest import Open
from tests.support.harness.chromium import BrowserWindow
from tests.support.harness.sandbox import PROJECT, Sandbox


def test_switch_starts_and_stops_containers_and_can_be_undone(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon)
    window.is_well()
    expect(window.group("extra").locator(".count")).to_have_text("1/1")
    sent = window.hold("**/services/stop/extra*")
    mark = sandbox.recorder.mark()
    window.switch("extra").click()
    expect(window.switch("extra"), "shown before the answer").to_have_attribute("aria-checked", "false")
    expect(window.state("extra")).to_have_text("to be off")
    window.has_requested(sent)
    sent[0].continue_()
    expect(window.state("extra")).to_have_text("stopped")
    assert "extra: off" in (sandbox.desired / "groups.yaml").read_text()
    # Undo is offered for ten seconds.
    window.page.get_by_role("button", name="Undo").click()
    stopped = [event.service for event in sandbox.recorder.touched(mark, PROJECT) if event.action == "die"]
    assert stopped == ["cache"]
    expect(window.state("extra")).to_have_text("converged")
    sandbox.is_true()
    assert (sandbox.desired / "groups.yaml").read_text().count("on ") == 1, "the comment is unchanged"


def test_switch_previews_the_groups_that_change_with_it(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon)
    generation = sandbox.daemon.get("/services/status")["generation"]
    window.switch("base").click()
    preview = window.group("base").locator(".preview")
    expect(preview).to_contain_text("base is needed by app and front, which are on")
    expect(preview).to_contain_text("stops 5 containers")
    expect(preview).to_contain_text("The daemon would stop")
    window.page.keyboard.press("Escape")
    expect(preview).to_have_count(0)
    assert sandbox.daemon.get("/services/status")["generation"] == generation
    window.switch("base").click()
    preview.get_by_role("button", name="Switch base, app and front off").click()
    expect(window.state("front")).to_have_text("stopped")
    sandbox.is_true({"extra"})
    window.switch("front").click()
    window.group("front").get_by_role("button", name="Switch front, base and app on").click()
    expect(window.state("front")).to_have_text("converged")
    window.is_well()
    sandbox.is_true()


def test_progress_of_each_service_is_shown(sandbox: Sandbox, visit: Open) -> None:
    sandbox.switch(app=False, front=False)
    sandbox.daemon.converged()
    window = visit(sandbox.daemon, "#/groups?open=app,front")
    window.record('[data-service="web"] .line')
    api = sandbox.one("api")["Id"]
    with sandbox.proxy.hooked(lambda call: "hold" if call.path == f"/containers/{api}/start" else None):
        window.switch("app").click()
        window.switch("front").click()
        expect(window.service("web")).to_contain_text("waits for")
    expect(window.state("front")).to_have_text("converged")
    window.is_well()
    seen = window.recorded()
    places = [_first(seen, word) for word in ("absent|stopped", "waiting .*waits for", "running")]
    assert places == sorted(places), seen
    sandbox.is_true()


def _first(seen: list[str], pattern: str) -> int:
    return next((i for i, text in enumerate(seen) if re.search(pattern, text)), len(seen) + 1)


def test_killed_container_and_its_repair_are_shown(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon, "#/groups?open=extra,extra/cache")
    window.page.evaluate("document.querySelector('[data-service=cache]').mark = 1")
    container = sandbox.one("cache")
    with sandbox.proxy.hooked(lambda call: "hold" if call.path.endswith("/start") else None):
        sandbox.docker.kill("small-cache")
        expect(window.notice("drift")).to_contain_text("1 service differs")
        expect(window.notice("drift")).to_contain_text(re.compile("cache (should run|exited with code 137)"))
    window.is_well()
    after = sandbox.one("cache")
    assert after["Id"] == container["Id"]
    assert after["State"]["StartedAt"] > container["State"]["StartedAt"]
    assert window.page.evaluate("document.querySelector('[data-service=cache]').mark") == 1, "kept in place"
    window.page.goto(f"{window.url}#/audit?by_group=extra")
    expect(window.page.locator(".log tr").filter(has_text="container start").first).to_contain_text("cache")


def test_suspension_shows_drift_and_can_be_resumed(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon, "#/groups?open=extra,extra/cache")
    window.page.get_by_role("button", name="Suspend …").click()
    window.page.get_by_label("because").fill("camera work")
    window.page.get_by_role("button", name="Suspend", exact=True).click()
    expect(window.state("extra")).to_have_text("suspended")
    sandbox.docker.kill("small-cache")
    expect(window.notice("suspended")).to_contain_text("camera work")
    expect(window.notice("suspended")).to_contain_text("cache exited with code 137")
    expect(window.notice("drift")).to_have_count(0)
    differences = window.service("cache").locator(".differences")
    expect(differences).to_contain_text("should run; exited with code 137")
    window.page.get_by_role("button", name="Resume").click()
    window.is_well()
    sandbox.is_true()


def test_held_changes_are_shown_and_applied_on_request(sandbox: Sandbox, visit: Open) -> None:
    services = "    services: [cache]\n"
    sandbox.daemon.converged(sandbox.edit("stack.yaml", services, f"{services}    on_change: report\n"))
    window = visit(sandbox.daemon)
    before = sandbox.one("cache")["Id"]
    sandbox.edit("compose.yaml", "cache-data:/data", "cache-data:/elsewhere")
    notice = window.notice("stuck-extra")
    expect(notice).to_contain_text("held back")
    assert sandbox.one("cache")["Id"] == before
    notice.get_by_role("button", name="Apply").click()
    expect(notice).to_have_count(0)
    window.is_well()
    assert sandbox.one("cache")["Id"] != before
    sandbox.is_true()


def test_broken_file_is_shown_with_its_line_until_it_is_corrected(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon)
    good = (sandbox.desired / "groups.yaml").read_text()
    sandbox.save("groups.yaml", good.replace("app: on", "app: onn"))
    expect(window.notice("files")).to_contain_text("groups.yaml:3")
    expect(window.notice("files")).to_contain_text("onn")
    expect(window.page.locator("#overall")).to_have_text("files invalid")
    window.switch("extra").click()
    expect(window.page.locator(".toast.red")).to_be_visible()
    assert window.switch("extra").get_attribute("aria-checked") == "true", "a refused change is not shown"
    sandbox.save("groups.yaml", good)
    expect(window.notice("files")).to_have_count(0)
    window.is_well()


def test_unreachable_engine_is_shown_until_it_returns(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon)
    sandbox.restarts += 1
    sandbox.engine.stop()
    expect(window.notice("engine")).to_contain_text("does not answer")
    expect(window.page.locator("#overall")).to_have_text("engine unreachable")
    sandbox.engine.start()
    expect(window.notice("engine")).to_have_count(0)
    window.is_well()


def test_two_browsers_see_each_others_changes(sandbox: Sandbox, visit: Open) -> None:
    one, other = visit(sandbox.daemon), visit(sandbox.daemon, "#/audit")
    one.switch("extra").click()
    expect(other.page.locator(".log tr").filter(has_text="stop extra").first).to_be_visible()
    other.page.keyboard.press("1")
    expect(other.state("extra")).to_have_text("stopped")
    other.switch("extra").click()
    expect(one.switch("extra")).to_have_attribute("aria-checked", "true")
    expect(one.state("extra")).to_have_text("converged")


def test_audit_entries_recorded_during_a_read_are_shown(sandbox: Sandbox, visit: Open) -> None:
    one, other = visit(sandbox.daemon), visit(sandbox.daemon, "#/audit")
    held: list[tuple[Route, APIResponse]] = []
    one.page.route("**/services/audit?*", lambda route: held.append((route, route.fetch())))
    one.page.keyboard.press("5")
    expect(one.page.get_by_text("Reading …")).to_be_visible()
    one.has_requested(held)
    other.page.keyboard.press("1")
    other.switch("extra").click()
    expect(other.state("extra")).to_have_text("stopped")
    other.page.keyboard.press("5")
    entry = ".log tr"
    expect(other.page.locator(entry).filter(has_text="stop extra").first).to_be_visible()
    for route, answer in held:
        route.fulfill(response=answer)
    expect(one.page.locator(entry).filter(has_text="stop extra").first).to_be_visible()


def test_container_log_is_read_followed_and_searched(sandbox: Sandbox, visit: Open) -> None:
    window = visit(sandbox.daemon, "#/groups?open=base,base/db")
    pane = window.page.get_by_role("log")
    expect(pane).to_contain_text("ready")
    expect(window.page.get_by_role("link", name="Download")).to_have_attribute("download", "db.log")
    window.page.get_by_placeholder("Search in the log").fill("ready")
    expect(pane.locator("mark").first).to_have_text("ready")
    assert all("ready" in line.lower() for line in pane.inner_text().splitlines() if line)
    window.page.get_by_placeholder("Search in the log").fill("no such thing")
    expect(window.page.get_by_text("No line has that.")).to_be_visible()


def test_memory_of_real_containers_is_measured(sandbox: Sandbox, visit: Open) -> None:
    window: BrowserWindow = visit(sandbox.daemon, "#/memory")
    row = window.page.locator(".memory tr").filter(has_text="base").first
    expect(row.locator("td").first).to_contain_text("MB")
    expect(window.page.locator(".memory")).to_contain_text("pilot and what it needs")
