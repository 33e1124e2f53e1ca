"""Debian's Chromium, driven by playwright, and the queries that all tests share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Response,
    Route,
    expect,
    sync_playwright,
)

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHIN = 60_000
"""Milliseconds that the page is given to show something."""

expect.set_options(timeout=WITHIN)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a temporary profile."""
    program = shutil.which("chromium")
    assert program, "chromium is missing: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def _carry(route: Route) -> None:
    # Chromium aborts loads when an engine creates a network interface; playwright does not.
    route.fulfill(response=route.fetch())


class BrowserWindow:
    """A browser window with a daemon's dashboard; errors of the page are in ``errors``."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        context.set_default_timeout(WITHIN)
        self.context = context
        self.url = f"{url}/services/dashboard"
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.failed: list[str] = []
        context.route(f"{self.url}**", _carry)
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("requestfailed", lambda request: self.failed.append(f"{request.url} {request.failure}"))
        self.page.on("response", self._answered)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, message: Any) -> None:
        # Chromium logs a refusal of the API as an error too; only errors of the page itself count.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def _answered(self, answer: Response) -> None:
        if answer.status >= 400:
            self.failed.append(f"{answer.url} {answer.status}")

    def open(self, address: str = "") -> BrowserWindow:
        """Load the page, at ``#/groups?...``, and wait until it shows groups."""
        shown = self.page.locator("[data-group], .map, .memory, .audit, .generations").first
        self.page.goto(self.url + address)
        shown.wait_for()
        return self

    def go(self, address: str) -> None:
        """Go to another address of the page and wait for it."""
        self.page.evaluate("(hash) => { location.hash = hash; }", address)
        self.page.wait_for_function(
            """(hash) => {
              const tab = document.querySelector(".tabs [aria-current]")?.getAttribute("href");
              const reads = document.body.innerText.includes("Reading …");
              return location.hash === hash && tab === hash.split("?")[0] && !reads;
            }""",
            arg=address,
        )

    def group(self, name: str) -> Any:
        """The card of a group."""
        return self.page.locator(f'[data-group="{name}"]')

    def switch(self, name: str) -> Any:
        """The switch of a group."""
        return self.group(name).get_by_role("switch")

    def state(self, name: str) -> Any:
        """The word beside the switch."""
        return self.group(name).locator(".row .state")

    def service(self, name: str) -> Any:
        """The line of a service in an open group."""
        return self.page.locator(f'[data-service="{name}"]')

    def notice(self, key: str) -> Any:
        """The first notice of a kind."""
        return self.page.locator(f'[data-notice="{key}"]')

    def is_well(self) -> None:
        """Wait until the page shows the stack as converged."""
        expect(self.page.locator("#overall")).to_have_text("converged")
        expect(self.notice("well")).to_contain_text("Everything is as it should be")

    def hold(self, pattern: str) -> list[Route]:
        """Hold requests to such addresses in a list until the test continues them."""
        held: list[Route] = []

        def keep(route: Route) -> None:
            held.append(route)

        self.page.route(pattern, keep)
        return held

    def has_requested(self, held: list[Any]) -> None:
        """Wait for a request that a route of the test holds in this list."""
        deadline = time.monotonic() + WITHIN / 1000
        while not held:
            assert time.monotonic() < deadline, "no request arrived"
            # Routes are served while playwright waits.
            self.page.wait_for_timeout(20)

    def record(self, selector: str) -> None:
        """Record every text of this element from now on, as the page paints it."""
        self.page.evaluate(
            """(selector) => {
              const seen = (window.seen = []);
              const look = () => {
                const text = document.querySelector(selector)?.innerText.replace(/\\s+/g, " ").trim();
                if (text && text !== seen[seen.length - 1]) seen.push(text);
              };
              look();
              const all = { subtree: true, childList: true, characterData: true };
              new MutationObserver(look).observe(document.body, all);
            }""",
            selector,
        )

    def recorded(self) -> list[str]:
        """The recorded texts."""
        found: list[str] = self.page.evaluate("window.seen")
        return found
