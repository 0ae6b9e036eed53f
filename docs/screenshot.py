"""Take the pictures in docs/images of a running Dagster web server, in a real browser.

    python docs/screenshot.py --url http://127.0.0.1:3000 --chain 20143 --dataset blocks --job chain_sync__devchain

Without --url it uses the stack under TRACE_HOME (``trace-lite demo --keep`` leaves one running). The browser is the
one at --browser, else a ``chromium`` or ``google-chrome`` on PATH, else Playwright's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import BrowserContext, Error, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotShown

from trace_dagster.config.running_stack import environment_with_stack, load_state
from trace_dagster.config.settings import Settings

IMAGES = Path(__file__).parent / "images"
VIEWPORT = {"width": 1400, "height": 900}
MAX_BYTES = 300_000
WAIT_MILLISECONDS = 60_000
SETTLE_MILLISECONDS = 1_500  # animations and the last redraw after the content is there
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DISMISSAL = "Skip"  # closes "Join the Dagster community", which covers the page on a first visit
PARTITION_KEY = re.compile(r"^\d{9,12}\S*\d{9,12}$")  # the page shortens long keys in the middle
POPUP_MILLISECONDS = 3_000


@dataclass(frozen=True)
class Picture:
    """One page: the image's file name, the page's path, a text that appears only with its content, and the link to
    click then.
    """

    file: str
    path: str
    shows: str
    click: re.Pattern[str] | None = None


def pictures(chain: str, dataset: str, job: str, followed: str) -> list[Picture]:
    """Return the pages of which pictures are taken; ``followed`` is a dataset with hot rows."""
    return [
        Picture("partitions.png", f"/assets/{chain}/{dataset}?view=partitions", "Materialized", PARTITION_KEY),
        Picture(
            "compaction.png",
            f"/assets/{chain}/{dataset}/{dataset}_compacted?view=partitions",
            "Materialized",
            PARTITION_KEY,
        ),
        Picture("asset_graph.png", "/asset-groups", dataset),
        Picture(
            "verification.png", f"/assets/{chain}/{dataset}?view=checks", "verification", re.compile("^verification$")
        ),
        Picture("tip.png", f"/assets/{chain}/{followed}?view=checks", "coverage", re.compile("^tip$")),
        Picture("job.png", f"/locations/trace_dagster/jobs/{job}/partitions", "Partition"),
    ]


def take(page: Page, url: str, picture: Picture) -> Path:
    """Open a page, wait for its content, close what covers it, and write the PNG."""
    page.goto(url + picture.path, wait_until="domcontentloaded")
    page.get_by_text(picture.shows).first.wait_for(timeout=WAIT_MILLISECONDS)
    dismiss_popups(page)
    if picture.click:
        page.get_by_text(picture.click).first.click()
        page.mouse.move(0, 0)  # a hint shows under a resting pointer
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    target = IMAGES / picture.file
    page.screenshot(path=str(target), animations="disabled", caret="hide")
    if target.stat().st_size > MAX_BYTES:
        sys.exit(f"error: {target.name} is larger than {MAX_BYTES} bytes: the page shows too much for the README")
    return target


def dismiss_popups(page: Page) -> None:
    """Close the dialog of a first visit. It appears shortly after the page, or not at all."""
    way_out = page.get_by_role("button", name=DISMISSAL, exact=True)
    try:
        way_out.wait_for(timeout=POPUP_MILLISECONDS)
    except NotShown:
        return
    way_out.click()
    way_out.wait_for(state="hidden")


def browser_path(given: str | None) -> str | None:
    """Return the path of the browser; None means Playwright's own."""
    return given or next((found for name in BROWSERS if (found := shutil.which(name))), None)


def reason(error: Error) -> str:
    """Return what went wrong in one line, and what to do if there is no browser."""
    first = str(error).splitlines()[0]
    if "executable doesn't exist" in first.lower():
        return f"no browser was found: install chromium, or give --browser PATH ({first})"
    return f"the browser did not get there: {first}"


def running_url(settings: Settings) -> str:
    """Return the URL of the web server of the stack under TRACE_HOME."""
    state = load_state(settings.home)
    if state is None:
        sys.exit("error: no stack is running here: start one with `trace-lite demo --keep`, or give --url")
    return state.web_url


def open_browser(play: object, executable: str | None, profile: str, password: str | None) -> BrowserContext:
    """Open a browser with a new profile, so that every run shows the same page."""
    known = {"http_credentials": {"username": "screenshot", "password": password}} if password else {}
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # chromium's sandbox refuses to run as root
    return play.chromium.launch_persistent_context(  # type: ignore[attr-defined]
        profile, executable_path=executable, headless=True, args=[*QUIET, *root], viewport=VIEWPORT, **known
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="the web server's address; default: the running stack's")
    parser.add_argument("--chain", default="20143")
    parser.add_argument("--dataset", default="blocks")
    parser.add_argument("--job", default="chain_sync__devchain")
    parser.add_argument("--followed", default="tip_blocks", help="a dataset with hot rows")
    parser.add_argument("--browser", help="path of a Chromium")
    arguments = parser.parse_args()
    settings = Settings.read(environment_with_stack(os.environ))
    url = (arguments.url or running_url(settings)).rstrip("/")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshot-") as profile, sync_playwright() as play:
        try:
            context = open_browser(play, browser_path(arguments.browser), profile, settings.web_password)
            page = context.pages[0]
            for picture in pictures(arguments.chain, arguments.dataset, arguments.job, arguments.followed):
                print(take(page, url, picture))
            context.close()
        except Error as error:
            sys.exit(f"error: {reason(error)}")


if __name__ == "__main__":
    main()
