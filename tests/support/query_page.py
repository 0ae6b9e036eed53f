"""The query page in a real browser, logged in to a real service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.conftest import cloned_database, fresh_bucket
from tests.support.committed import FULL, commit_rows
from tests.support.corpus_lake import commit_lake
from tests.support.registry import apply, job_text
from tests.support.service import RunningService, running_service
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.connection import Database
from trace_dagster.registry.tokens import Tokens
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

BLOCKS = 120
"""Blocks of the devchain that the page's service has."""
_WAIT_MILLISECONDS = 60_000
_REPORT_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error("policy violation", event.violatedDirective, event.blockedURI))"""
_ENDED = re.compile("^(done|failed|cancelled)")
_REFUSED = "Failed to load resource"
"""Chromium writes it to the console for each answer that is an error."""


@dataclass
class QueryPage:
    """The page, and what went wrong in the browser."""

    page: Page
    service: RunningService
    problems: list[str] = field(default_factory=list)
    """Requests to other hosts, uncaught errors, and violations of the page's policy."""

    def link(self, name: str = "person") -> str:
        """Make a login link."""
        with closing(Database(self.service.postgres_url, max_connections=1)) as database:
            return f"{self.service.url}/login#{Tokens(database).link(name)}"

    def log_in(self) -> None:
        """Log in by a link, and wait for the datasets."""
        self.page.goto(self.link())
        self.page.locator(".dataset").first.wait_for(state="attached")

    def editor(self) -> Locator:
        """Return where SQL is written."""
        return self.page.get_by_label("SQL", exact=True)

    def text(self) -> str:
        """Return the SQL."""
        return "\n".join(self.page.locator("#editor .cm-line").all_inner_texts()).replace("\n\n", "\n").strip()

    def write(self, sql: str) -> None:
        """Replace the SQL."""
        self.editor().click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(sql)
        self.page.keyboard.press("Escape")  # closes proposals

    def start(self, sql: str) -> None:
        """Run SQL by the keyboard, without waiting for its end."""
        self.write(sql)
        self.page.keyboard.press("Control+Enter")

    def run(self, sql: str) -> None:
        """Run SQL and wait for its answer or error."""
        self.page.locator("#status").evaluate("status => status.textContent = ''")
        self.start(sql)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until the query ended, whether well or not."""
        self.page.locator("#status").filter(has_text=_ENDED).wait_for()

    def shown_rows(self) -> list[list[str]]:
        """Return the cells of the rows that are in the document."""
        rows: list[list[str]] = self.page.locator("#grid tbody").evaluate(
            "body => [...body.querySelectorAll('tr[data-row]')].map("
            "row => [...row.querySelectorAll('td[data-column]')].map(cell => cell.textContent))"
        )
        return rows


@contextmanager
def page_service(postgres: tuple[int, str], template: str, s3_server: S3Access) -> Iterator[RunningService]:
    """Run a service over the devchain's first blocks, and over another chain that lacks blocks 20 to 39.

    It is for fixtures of a whole module. It runs one query at a time.
    """
    with cloned_database(*postgres, template) as url, fresh_bucket(s3_server) as access:
        with closing(Database(url)) as database:
            store = ObjectStore(access)
            commit_lake(database, store, BLOCKS)
            streams = apply(database, job_text(to_block=60, chunk=20))
            for start in (0, 40):
                commit_rows(database, store, streams["blocks"], BlockRange(start, start + 20), FULL)
        with running_service(url, access, running=1) as running:
            yield running


@contextmanager
def query_page(browser: Browser, service: RunningService, **options: Any) -> Iterator[QueryPage]:
    """Open a new profile whose requests to other hosts are refused. At the end nothing must have gone wrong."""
    context = browser.new_context(accept_downloads=True, **options)
    context.add_init_script(_REPORT_VIOLATIONS)
    page = context.new_page()
    page.set_default_timeout(_WAIT_MILLISECONDS)
    found = QueryPage(page, service)

    def own_only(route: Route) -> None:
        if route.request.url.startswith(service.url + "/"):
            route.continue_()
        else:
            found.problems.append(f"request to {route.request.url}")
            route.abort()

    context.route("**/*", own_only)
    page.on("pageerror", lambda error: found.problems.append(f"uncaught: {error}"))
    page.on(
        "console",
        lambda said: found.problems.append(said.text) if said.type == "error" and _REFUSED not in said.text else None,
    )
    try:
        yield found
    finally:
        context.close()
    assert found.problems == []
