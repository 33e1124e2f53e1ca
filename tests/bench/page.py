"""The dashboard in Chromium on the same host: nothing cached, no engine needed."""

from __future__ import annotations

from collections.abc import Iterator

from playwright.sync_api import Browser, expect

from tests.bench.harness import BenchHarness
from tests.support.fixtures.simulated_daemons import simulated_daemon, write_many
from tests.support.harness.chromium import BrowserWindow, chromium
from tests.support.harness.daemon import Daemon

from .figures import Figure

_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_WATCH = """() => {
  window.slow = [0];
  const note = (list) => slow.push(...list.getEntries().map((e) => e.duration));
  new PerformanceObserver(note).observe({ type: "longtask" });
}"""


def scenario(bench: BenchHarness) -> Iterator[Figure]:
    """First paint, and the longest task of a switch among 100 groups."""
    with chromium() as browser:
        with simulated_daemon(bench.folder / "page") as daemon:
            daemon.start()
            paints = [_paint(browser, daemon) for _ in range(bench.runs + 1)][1:]
        yield Figure(what="dashboard: first paint", values=paints, unit="ms", limit=300)
        many = bench.folder / "many" / "desired-state"
        write_many(many)
        with simulated_daemon(bench.folder / "many", desired=many) as daemon:
            daemon.start()
            tasks = [_longest_task(browser, daemon) for _ in range(bench.runs)]
        yield Figure(
            what="dashboard of 100 groups of 10: longest task when one is switched", values=tasks, unit="ms"
        )


def _paint(browser: Browser, daemon: Daemon) -> float:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{daemon.url}/services/dashboard")
        page.locator("[data-group]").first.wait_for()
        return float(page.evaluate(_PAINTED))


def _longest_task(browser: Browser, daemon: Daemon) -> float:
    with browser.new_context() as context:
        window = BrowserWindow(context, daemon.url).open("#/groups?open=group-000")
        window.is_well()
        window.page.evaluate(_WATCH)
        for state in ("stopped", "converged"):
            window.switch("group-003").click()
            expect(window.state("group-003")).to_have_text(state)
        return float(window.page.evaluate("Math.max(...slow)"))
