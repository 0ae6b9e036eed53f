"""The query page: a real browser, a real service, and the devchain's rows."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.query_page import BLOCKS, query_page
from trace_dagster.registry.connection import Database
from trace_dagster.registry.tokens import Tokens

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ENDLESS = "select sum(sin(i)) from range(100000000000) t(i)"
FAILS_MIDWAY = "select i, case when i = 3999999 then 'x' else '1' end::int as n from range(4000000) t(i)"
HOSTILE = "<img src=x onerror=hit=1>"


@pytest.fixture
def shown(browser, service):
    """Open the page at a desk, logged in."""
    with query_page(browser, service, viewport={"width": 1280, "height": 800}) as opened:
        opened.log_in()
        yield opened


@contextmanager
def visited(browser, service, **options):
    """Open the page as someone who is not logged in."""
    with query_page(browser, service, **options) as opened:
        opened.page.goto(service.url)
        yield opened


def test_a_login_link_opens_the_page_one_time(browser, service):
    with query_page(browser, service) as opened:
        link = opened.link()
        opened.page.goto(link)
        opened.page.wait_for_url(service.url + "/")
        opened.page.get_by_role("button", name="Log out").wait_for()
        (cookie,) = opened.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert cookie["value"] not in link
        assert link.partition("#")[2] not in json.dumps(
            opened.page.evaluate("performance.getEntries().map(e => e.name)")
        )
        opened.page.get_by_role("button", name="Log out").click()
        opened.page.get_by_role("dialog", name="Log in").wait_for()
        assert opened.page.context.cookies() == []
        opened.page.goto(link)
        opened.page.get_by_role("alert").filter(has_text="trace-lite token link").wait_for()
        assert opened.page.url == service.url + "/login"


def test_without_a_session_the_page_says_how_to_log_in_and_takes_a_pasted_link(browser, service):
    with visited(browser, service) as opened:
        dialog = opened.page.get_by_role("dialog", name="Log in")
        dialog.get_by_text("trace-lite token link").wait_for()
        dialog.get_by_label("Or paste the link").fill("nonsense")
        opened.page.keyboard.press("Enter")
        dialog.get_by_role("alert").filter(has_text="trace-lite token link").wait_for()
        dialog.get_by_label("Or paste the link").fill(opened.link())
        opened.page.keyboard.press("Enter")
        dialog.wait_for(state="hidden")
        opened.page.locator(".dataset").first.wait_for()


def test_when_the_session_ends_midway_the_text_is_kept(shown):
    sql = "select count(*) as n from chain_20143.blocks"
    with closing(Database(shown.service.postgres_url, max_connections=1)) as database:
        Tokens(database).revoke("person")
    shown.start(sql)
    dialog = shown.page.get_by_role("dialog", name="Log in")
    dialog.wait_for()
    assert shown.text() == sql
    dialog.get_by_label("Or paste the link").fill(shown.link("again"))
    shown.page.keyboard.press("Enter")
    dialog.wait_for(state="hidden")
    shown.page.keyboard.press("Control+Enter")
    shown.page.get_by_role("gridcell", name=str(BLOCKS)).wait_for()
    shown.page.reload()
    shown.page.locator(".dataset").first.wait_for()
    assert shown.text() == sql


def test_datasets_have_coverage_gaps_and_columns(shown):
    known = {each["name"]: each for each in shown.service.ask("/v1/datasets").json()["datasets"]}
    names = shown.page.locator(".dataset .name").all_inner_texts()
    assert sorted(names) == sorted(name.partition(".")[2] for name in known)
    assert shown.page.get_by_label("chain_99.blocks has blocks 0 to 59, lacks 20 blocks (20 to 39)").count() == 1
    assert shown.page.get_by_label(f"chain_20143.logs has blocks 0 to {BLOCKS - 1}", exact=True).count() == 1
    bar = shown.page.get_by_label("chain_99.blocks has blocks")
    parts = bar.locator("i.committed").evaluate_all("parts => parts.map(each => [each.style.left, each.style.width])")
    assert [[round(float(text[:-1])) for text in part] for part in parts] == [[0, 33], [67, 33]]
    shown.page.get_by_label("Columns of chain_20143.logs").click()
    columns = shown.page.locator(".columns-list li").all_inner_texts()
    wanted = [f"{each['name']} {each['type']}" for each in known["chain_20143.logs"]["columns"]]
    wanted = [text.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for text in wanted]
    assert [" ".join(text.split()) for text in columns] == wanted


def test_a_bar_does_not_show_blocks_before_the_newest_gaps_as_committed(browser, service):
    """The service sends the newest 100 gaps of a dataset; here it sends one of two."""

    def with_one_gap(route):
        answer = route.fetch()
        found = answer.json()
        (known,) = (each for each in found["datasets"] if each["name"] == "chain_99.blocks")
        known["coverage"] |= {"missing_blocks": 8, "gaps": [[40, 45]]}
        route.fulfill(response=answer, json=found)

    with query_page(browser, service) as opened:
        opened.page.route("**/v1/datasets", with_one_gap)
        opened.log_in()
        bar = opened.page.get_by_label("chain_99.blocks has blocks")
        parts = bar.locator("i").evaluate_all(
            "parts => parts.map(each => [each.className, parseFloat(each.style.left), parseFloat(each.style.width)])"
        )
        assert [(kind, round(left * 0.6), round(width * 0.6)) for kind, left, width in parts] == [
            ("partly", 0, 40),
            ("gap", 40, 20),
            ("committed", 45, 15),
        ]
        title = bar.locator("i.partly").get_attribute("title")
        assert title == "chain_99.blocks has gaps up to block 39 that are not shown one by one"


def test_a_click_puts_names_into_the_query_and_a_search_finds_columns(shown):
    shown.write("select count(*) from")
    shown.page.keyboard.press("/")
    assert shown.text() == "select count(*) from/"
    shown.page.keyboard.press("Backspace")
    shown.page.locator("h2").first.click()
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("trace_addr")
    shown.page.locator(".dataset").nth(1).wait_for(state="hidden")
    assert shown.page.locator(".dataset .name").all_inner_texts() == ["geth_calls"]
    shown.page.locator(".dataset .name").click()
    assert shown.text() == "select count(*) from geth_calls"


def test_texts_of_rows_names_and_errors_never_become_html(shown):
    shown.run(f"select '{HOSTILE}' as \"{HOSTILE}\" from range(2)")
    assert shown.shown_rows() == [[HOSTILE], [HOSTILE]]
    shown.page.locator("td[data-column='0']").first.click()
    assert shown.page.locator("#cell-name").inner_text() == HOSTILE
    assert shown.page.locator("#cell-value").inner_text() == HOSTILE
    shown.run(f'select "{HOSTILE}" from chain_20143.blocks')
    assert HOSTILE in shown.page.locator("#error-text").inner_text()
    shown.page.get_by_role("button", name="Recent").click()
    assert HOSTILE in shown.page.get_by_role("menuitem").first.inner_text()
    assert shown.page.evaluate("document.querySelectorAll('img:not([src=\"page/icon.svg\"])').length") == 0
    assert shown.page.evaluate("typeof hit") == "undefined"


def test_trusted_types_refuse_html_from_a_text(shown):
    refused = "try { document.createElement('p').innerHTML = '<b>x</b>'; 'taken' } catch (error) { error.name }"
    assert shown.page.evaluate(refused) == "TypeError"
    shown.page.wait_for_timeout(500)  # the browser tells of both by its console
    own = [each for each in shown.problems if "trusted-types" in each or "TrustedHTML" in each or "innerHTML" in each]
    assert own
    assert [each for each in shown.problems if each not in own] == []
    shown.problems.clear()


@pytest.mark.parametrize(
    "sql", ["select nothing from chain_20143.blocks", "drop table blocks", "select 1 +", "select * from blocks"]
)
def test_an_error_is_shown_as_the_service_gives_it(shown, sql):
    error = shown.service.query(sql).error
    shown.run(sql)
    assert shown.page.locator("#error-text").inner_text() == error["message"]
    assert shown.page.locator("#error-title").inner_text() == f"{error['status']} {error['code'].replace('_', ' ')}"
    assert shown.text() == sql
    shown.run("select 1 as one")
    assert shown.page.locator("#error").is_hidden()


def proposals(shown, typed):
    shown.editor().click()
    shown.page.keyboard.press("Control+a")
    shown.page.keyboard.press("Backspace")
    before, _, after = typed.partition("|")
    shown.page.keyboard.insert_text(before + after)
    for _ in after:
        shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("Control+Space")
    shown.page.locator(".cm-tooltip-autocomplete li").first.wait_for()
    return shown.page.locator(".cm-tooltip-autocomplete .cm-completionLabel").all_inner_texts()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("select ga| from transactions", ["gas_limit", "gas_price", "gas_used"]),
        ("select l.| from chain_20143.logs as l", ["topic0", "data", "log_index"]),
        ("select * from chain_99.|", ["blocks", "logs"]),
        ("select * from chain_9|", ["chain_99"]),
        ("select * from trans|", ["transactions"]),
        ("select date_t|", ["date_trunc"]),
        ("select a.base| from chain_20143.blocks a join chain_99.logs using (block_number)", ["base_fee_per_gas"]),
        ("select topic| from chain_20143.blocks b, chain_20143.logs", ["topic0", "topic3"]),
        ("sel|", ["select"]),
    ],
)
def test_tables_columns_and_functions_are_proposed(shown, typed, wanted):
    found = proposals(shown, typed)
    assert set(wanted) <= set(found), found
    if "|" in typed and "." in typed.partition("|")[0].split()[-1]:
        assert "select" not in found


def test_nothing_is_proposed_within_a_text_or_a_comment(shown):
    for typed in ("select 'blo", "select 1 -- blo"):
        shown.write("")
        shown.page.keyboard.type(typed)
        shown.page.wait_for_timeout(500)
        assert shown.page.locator(".cm-tooltip-autocomplete").count() == 0
        assert shown.text().startswith(typed)


def test_a_running_query_shows_its_state_and_is_cancelled_by_escape(shown):
    shown.start(ENDLESS)
    shown.page.get_by_text("running ·").wait_for()
    assert shown.page.get_by_role("button", name="Run").is_disabled()
    began = time.monotonic()
    shown.page.keyboard.press("Escape")
    shown.page.get_by_text("cancelled", exact=True).wait_for()
    assert time.monotonic() - began < 10
    assert shown.page.locator("#error").is_hidden()
    shown.run("select 1 as one")  # there is one place, so it is free again
    assert shown.shown_rows() == [["1"]]


def test_a_query_that_waits_says_its_position(shown, browser):
    with query_page(browser, shown.service) as other:
        other.log_in()
        other.start(ENDLESS)
        other.page.get_by_text("running ·").wait_for()
        shown.start("select 1 as one")
        shown.page.get_by_text("queued, position 1").wait_for()
        other.page.get_by_role("button", name="Cancel").click()
        shown.wait_for_end()
        assert shown.shown_rows() == [["1"]]


def test_a_query_ends_when_its_page_is_closed(shown, browser):
    with query_page(browser, shown.service) as other:
        other.log_in()
        other.start(ENDLESS)
        other.page.get_by_text("running ·").wait_for()
    shown.run("select 1 as one")
    assert shown.shown_rows() == [["1"]]


def test_csv_and_parquet_have_all_rows(shown):
    sql = "select i, 'text ' || i as text from range(12000) t(i) order by i"
    shown.page.locator("#limit").select_option("100")
    shown.run(sql)
    saved = {}
    for name in ("CSV", "Parquet"):
        with shown.page.expect_download() as download:
            shown.page.get_by_role("button", name=name, exact=True).click()
        assert re.fullmatch(rf"query_\d{{8}}T\d{{6}}Z\.{name.lower()}", download.value.suggested_filename)
        saved[name] = Path(download.value.path()).read_bytes()
        shown.page.get_by_text(" saved").wait_for()
    assert saved["CSV"] == shown.service.query(sql, format="csv").body
    assert pq.read_table(BytesIO(saved["Parquet"])).num_rows == 12_000


@pytest.mark.parametrize("name", ["CSV", "Parquet"])
def test_a_broken_transfer_is_an_error_and_leaves_no_file(shown, name):
    downloads = []

    def note(download):  # the browser's client does not take a method of a list
        downloads.append(download)

    shown.page.on("download", note)
    shown.page.locator("#limit").select_option("100")
    shown.run("select 1 as one")
    # The first rows of the answer are well, so that the table is shown.
    shown.run(f"{FAILS_MIDWAY} limit 5000000")
    shown.page.get_by_role("button", name=name, exact=True).click()
    shown.page.get_by_text("failed, nothing was saved").wait_for()
    assert shown.page.locator("#error-text").inner_text() != ""
    assert downloads == []


def test_every_example_runs_on_the_devchain(shown):
    count = shown.page.locator("#examples [role=menuitem]").count()
    assert count >= 8
    for at in range(count):
        shown.page.get_by_role("button", name="Examples").click()
        item = shown.page.locator("#examples [role=menuitem]").nth(at)
        title = item.inner_text()
        item.click()
        shown.page.locator("#status").evaluate("status => status.textContent = ''")
        shown.page.keyboard.press("Control+Enter")
        shown.wait_for_end()
        assert shown.page.locator("#error").is_hidden(), (title, shown.page.locator("#error-text").inner_text())
        assert shown.shown_rows(), title


def coloured_pixels(shown):
    """Return how many pixels of the chart have the accent colour."""
    return shown.page.locator("#chart canvas").evaluate("""canvas => {
      const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
      const wanted = [1, 3, 5].map(at => parseInt(accent.slice(at, at + 2), 16));
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let found = 0;
      for (let at = 0; at < data.length; at += 4) found += wanted.every((value, byte) => data[at + byte] === value);
      return found;
    }""")


def test_a_chart_draws_numbers_over_times_and_texts(shown):
    shown.run(
        "select timestamptz '2024-05-01 12:00:00Z' + i * interval 1 hour as hour, 'name ' || i as name"
        ", i * 100000000000000000000::hugeint as wei from range(10) t(i) order by i desc"
    )
    shown.page.get_by_role("tab", name="Chart").click()
    assert shown.page.get_by_label("wei by hour, 10 points").count() == 1
    line = coloured_pixels(shown)
    assert line > 100
    box = shown.page.locator("#chart .u-over").bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    assert shown.page.locator("#chart-read").inner_text() == "2024-05-01 21:00:00Z: 900000000000000000000"
    shown.page.get_by_role("button", name="Bar", exact=True).click()
    assert coloured_pixels(shown) > 5 * line
    shown.page.locator("#chart-x").select_option(label="name")
    assert shown.page.get_by_label("wei by name, 10 points").count() == 1
    shown.run("select 'a' as text")
    shown.page.get_by_text("A chart needs a column of numbers.").wait_for()


def test_as_of_and_final_blocks_are_asked_for(shown):
    shown.page.get_by_label("As of").fill("50")
    shown.run("select max(block_number) as last from chain_20143.blocks")
    assert shown.shown_rows() == [["50"]]
    assert "rows up to block 50" in shown.page.locator("#snapshot").inner_text()
    shown.page.get_by_label("As of").fill("common")
    shown.page.get_by_label("Final blocks only").check()
    with shown.page.expect_request("**/v1/query") as asked:
        shown.run("select 1 as one")
    sent = asked.value.post_data_json
    assert (sent["as_of"], sent["finalized_only"], sent["limit"]) == ("common", True, 1000)
    shown.page.get_by_label("As of").fill("never")
    shown.run("select 1 as one")
    assert shown.page.locator("#error-title").inner_text().startswith("400")


def test_an_answer_with_gaps_says_so(shown):
    shown.run("select count(*) as n from chain_99.blocks")
    assert shown.shown_rows() == [["40"]]
    warning = shown.page.get_by_text("chain_99.blocks lacks 20 blocks")
    warning.click()
    shown.page.get_by_text("no row of these is in the answer: 20 to 39").wait_for()


def test_the_page_is_used_by_the_keyboard_alone(shown):
    shown.page.locator(".skip").focus()
    reached = []
    for _ in range(60):
        shown.page.keyboard.press("Tab")
        reached.append(shown.page.evaluate("document.activeElement.id || document.activeElement.dataset.focus || ''"))
        ring = shown.page.evaluate(
            "document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle"
        )
        assert ring != "none" or reached[-1] == "editor", reached
    places = [
        reached.index(name)
        for name in ("logout", "datasets-filter", "chain_20143.blocks", "editor", "run", "limit", "as-of", "finalized")
    ]
    assert places == sorted(places)
    shown.page.locator(".skip").focus()
    shown.page.keyboard.press("Enter")
    assert shown.editor().evaluate("editor => editor.getRootNode().activeElement === editor")
    shown.page.locator("#examples > button").focus()
    for key in ("Enter", "ArrowDown", "Enter"):
        shown.page.keyboard.press(key)
    assert "date_trunc" in shown.text()
    shown.page.keyboard.press("Control+Enter")
    shown.wait_for_end()
    assert shown.shown_rows()


@pytest.mark.parametrize("width", [390, 700, 1280])
def test_nothing_is_wider_than_the_window(browser, service, width):
    with query_page(browser, service, viewport={"width": width, "height": 844}) as opened:
        opened.log_in()
        opened.run("select *, repeat('wide ', 200) as wide from chain_20143.blocks limit 5")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 800:
            opened.page.get_by_role("button", name="Show").click()
        assert opened.page.locator(".dataset").first.is_visible()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


CONTRAST = """pairs => {
  const style = getComputedStyle(document.documentElement);
  const light = name => {
    const [r, g, b] = [1, 3, 5].map(at => parseInt(style.getPropertyValue(name).trim().slice(at, at + 2), 16) / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  return pairs.map(([one, other]) => Math.max(light(one), light(other)) / Math.min(light(one), light(other)));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable_in_light_and_dark(browser, service, scheme):
    inks = ("--ink", "--dim", "--bad", "--hot-ink", "--sql-keyword", "--sql-text", "--sql-number", "--sql-type")
    pairs = [(ink, ground) for ink in inks for ground in ("--surface", "--sunken")]
    pairs += [("--ink", "--ground"), ("--dim", "--ground"), ("--on-accent", "--accent"), ("--bad", "--bad-wash")]
    pairs += [("--hot-ink", "--warn-wash"), ("--ink", "--hover"), ("--ink", "--selection")]
    with visited(browser, service, color_scheme=scheme) as opened:
        found = opened.page.evaluate(CONTRAST, pairs)
        assert {pair: round(ratio, 2) for pair, ratio in zip(pairs, found, strict=True) if ratio < 4.5} == {}
        lightness = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", lightness)[0]) > 128) == (scheme == "light")


def test_assets_are_guarded_and_revalidated(service):
    for path in (
        "/",
        "/login",
        "/page/main.js",
        "/page/page.css",
        "/page/vendor/codemirror.js",
        "/page/functions.json",
    ):
        answer = service.ask(path, token=None)
        assert answer.status == 200, path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        again = service.ask(path, token=None, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
    for path in (
        "/page/",
        "/page/nothing.js",
        "/page/../page_routes.py",
        "/page/%2e%2e/page_routes.py",
        "/page/vendor",
        "/page//etc/passwd",
    ):
        assert service.ask(path, token=None).status == 404, path


def test_no_page_has_code_or_style_within_its_html(service):
    for path in ("/", "/login"):
        html = service.ask(path, token=None).body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", html)
