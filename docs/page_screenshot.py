"""Take the pictures of the query page in docs/images, in light and dark, of the running stack.

    python docs/page_screenshot.py

The stack is the one under TRACE_HOME; ``trace-lite demo --keep`` leaves one running. The browser is found as
docs/screenshot.py finds it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Error, Page, sync_playwright
from screenshot import IMAGES, MAX_BYTES, QUIET, browser_path, reason

from trace_dagster.config.running_stack import environment_with_stack
from trace_dagster.config.settings import Settings
from trace_dagster.lite.query_service import login_link

VIEWPORT = {"width": 1280, "height": 800}
SCHEMES = ("light", "dark")
EXAMPLE = "Gas over time"
WAIT_MILLISECONDS = 60_000
SETTLE_MILLISECONDS = 800  # the chart is drawn after the rows are there


def take(page: Page, link: str, scheme: str) -> Path:
    """Log in, run an example, draw its chart, and write the PNG."""
    page.set_default_timeout(WAIT_MILLISECONDS)
    page.goto(link)
    page.locator(".dataset").first.wait_for()
    page.get_by_role("button", name="Examples").click()
    page.get_by_role("menuitem", name=EXAMPLE).click()
    page.get_by_label("Columns of").first.click()
    page.get_by_role("button", name="Run").click()
    page.get_by_text("done ·").wait_for()
    page.get_by_role("tab", name="Chart").click()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    target = IMAGES / f"query_page_{scheme}.png"
    page.screenshot(path=str(target), animations="disabled", caret="hide")
    if target.stat().st_size > MAX_BYTES:
        sys.exit(f"error: {target.name} is larger than {MAX_BYTES} bytes")
    return target


def main() -> None:
    settings = Settings.read(environment_with_stack(os.environ))
    if settings.query.url is None:
        sys.exit("error: no stack is running here: start one with `trace-lite demo --keep`")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium's sandbox refuses to run as root
    with sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=browser_path(None), args=[*QUIET, *root])
            for scheme in SCHEMES:
                context = browser.new_context(viewport=VIEWPORT, color_scheme=scheme)
                link = login_link(settings.postgres_url, settings.query.url, settings.home)
                print(take(context.new_page(), link, scheme))
                context.close()
            browser.close()
        except Error as error:
            sys.exit(f"error: {reason(error)}")


if __name__ == "__main__":
    main()
