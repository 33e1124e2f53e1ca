"""The dashboard and the API's documentation behind a real proxy with TLS, below a path."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.support.fixtures.simulated_daemons import simulated_daemon
from tests.support.harness.chromium import BrowserWindow
from tests.support.hosts.proxies import PATH, certificate, proxy


def test_the_pages_work_below_a_path(browser: Browser, tmp_path: Path) -> None:
    certificate(tmp_path)
    with simulated_daemon(tmp_path / "daemon") as daemon:
        # nginx sends $host without the port, so the name must be configured.
        names = ("SERVICE_MANAGER_ALLOWED_HOST", "SERVICE_MANAGER_TRUSTED_PROXY")
        daemon.environ |= dict.fromkeys(names, "127.0.0.1") | {"SERVICE_MANAGER_INSECURE": "1"}
        port = int(daemon.start().url.rpartition(":")[2])
        with proxy("nginx", tmp_path, port, below_a_path=True) as front:
            context = browser.new_context(ignore_https_errors=True)
            window = BrowserWindow(context, f"https://127.0.0.1:{front}{PATH}").open()
            window.switch("monitoring").click()
            expect(window.switch("monitoring")).to_have_attribute("aria-checked", "true")
            expect(window.page.locator(".toast")).to_contain_text("monitoring switched on")
            window.page.goto(f"https://127.0.0.1:{front}{PATH}/docs/")
            window.page.locator(".opblock[id$=healthz_get]").click()
            status = window.page.locator(".live-responses-table .response-col_status").last
            for _ in range(5):
                window.page.get_by_role("button", name="Execute").click()
                expect(window.page.locator(".request-url").first).to_contain_text(f"{front}{PATH}/healthz")
                expect(status).to_have_text(re.compile("200|Undocumented"))
                # Chromium aborts a request when the engine of another test creates a network interface.
                if "200" in status.inner_text():
                    break
                window.page.get_by_role("button", name="Clear").click()
            expect(status).to_have_text("200")
            assert window.errors == []
            context.close()
            assert daemon.get("/services/groups/monitoring")["state"] == "on"
