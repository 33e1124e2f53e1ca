"""``make screenshots``: the pictures of the dashboard that README.md shows, of the shipped stack at work.

Uses real containers of the stand-in images on a private engine.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.support.harness.chromium import BrowserWindow, chromium
from tests.support.harness.daemon import ROOT, Daemon
from tests.support.harness.private_engine import PrivateEngine
from tests.support.harness.sandbox import make_standin

FOLDER = ROOT / "dashboard" / "screenshots"
DESKTOP = (1280, 800)
PHONE = (390, 844)
LARGEST = 150_000
"""Bytes of one picture."""


def main() -> None:
    """Take all screenshots."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place, PrivateEngine() as engine, chromium() as browser:
        make_standin(engine)
        desired = Path(place) / "desired-state"
        shutil.copytree(ROOT / "desired-state", desired)
        standin = desired / "compose.standin.yaml"
        daemon = Daemon(desired, Path(place) / "state", engine.environ, (standin,))
        try:
            _take(daemon.start(), engine, browser)
        finally:
            daemon.kill()


def _take(daemon: Daemon, engine: PrivateEngine, browser: Browser) -> None:
    for group in ("kafka", "storage", "monitoring"):
        daemon.post(f"/services/start/{group}?wait=60")
    daemon.converged(within=60)
    phone = _window(browser, daemon, PHONE, "light")
    phone.is_well()
    for group in ("kafka", "storage", "monitoring"):
        expect(phone.group(group).locator(".meter")).not_to_contain_text("–")
    _shoot(phone, "phone")
    desktop = _window(browser, daemon, DESKTOP, "light", "#/groups?open=search")
    desktop.switch("search").click()
    expect(desktop.service("opensearch-dashboards")).to_contain_text("waits for opensearch")
    expect(desktop.service("opensearch")).to_contain_text("starting")
    _shoot(desktop, "desktop")
    daemon.converged(within=60)
    daemon.put(
        "/services/groups/monitoring", {"state": "on", "suspend": {"reason": "camera work on the mast"}}
    )
    engine.client.kill("alpr-loki")
    for name, size in (("desktop-dark", DESKTOP), ("phone-dark", PHONE)):
        window = _window(browser, daemon, size, "dark", "#/groups?open=monitoring,monitoring/loki")
        expect(window.notice("suspended")).to_contain_text("loki")
        expect(window.service("loki")).to_contain_text("should run")
        _shoot(window, name)


def _window(
    browser: Browser, daemon: Daemon, size: tuple[int, int], scheme: str, address: str = ""
) -> BrowserWindow:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=1.5 if size == PHONE else 1,
        reduced_motion="reduce",
    )
    return BrowserWindow(context, daemon.url).open(address)


def _shoot(window: BrowserWindow, name: str) -> None:
    path = FOLDER / f"{name}.png"
    window.page.screenshot(path=path)
    window.context.close()
    size = path.stat().st_size
    assert size < LARGEST, f"{path} has {size} bytes"
    print(f"{path.relative_to(ROOT)}  {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
