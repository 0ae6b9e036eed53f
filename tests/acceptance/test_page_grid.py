"""The rows of an answer as a table: only cells in view are drawn, and each is reached, read and copied."""

from __future__ import annotations

import pytest

from tests.support.query_page import query_page

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

COLUMNS = 3000
WIDE = f"select {', '.join(f'i + {at} as c{at}' for at in range(COLUMNS))} from range(200) t(i) order by i"
LONG_TEXT = "select i, '0x' || repeat('ab', 450000) as text, 'z' as last from range(20) t(i) order by i"
COUNT_DRAWN = """body => {
  window.drawn = 0;
  new MutationObserver(changes => changes.forEach(each => window.drawn += each.addedNodes.length))
    .observe(body, { childList: true, subtree: true });
}"""


@pytest.fixture
def shown(browser, service):
    """Open the page at a desk, logged in, with a clipboard."""
    with query_page(browser, service, viewport={"width": 1280, "height": 800}) as opened:
        opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened.log_in()
        yield opened


def press(shown, *keys):
    shown.page.get_by_role("grid").focus()
    for key in keys:
        shown.page.keyboard.press(key)


def selected(shown):
    """Return row, column and text of the selected cell, which must be in view below and right of the headings."""
    return shown.page.locator("#grid").evaluate("""grid => {
      const cells = grid.querySelectorAll("td[aria-selected=true]");
      const [cell] = cells;
      const table = grid.querySelector("table");
      if (cells.length !== 1 || table.getAttribute("aria-activedescendant") !== cell.id) return "not one cell";
      const [x, y] = [cell.getBoundingClientRect().left + 3, cell.getBoundingClientRect().top + 3];
      if (document.elementFromPoint(x, y) !== cell) return "hidden";
      return [Number(cell.parentElement.dataset.row), Number(cell.dataset.column), cell.textContent];
    }""")


def test_rows_are_shown_by_their_types(shown):
    shown.run(
        "select block_number, block_hash, block_timestamp, null as nothing, 123456789012345678901234567890::hugeint"
        " as h, [1, 2] as list from chain_20143.blocks order by 1 limit 3"
    )
    (first, *_), direct = shown.shown_rows(), shown.service.rows(shown.text())
    assert len(shown.shown_rows()) == len(direct) == 3
    assert first[:2] == [str(direct[0][0]), direct[0][1]]
    assert first[2] == direct[0][2].replace("T", " ").replace("+00:00", "Z")
    assert first[3:] == ["NULL", "123456789012345678901234567890", "[1,2]"]
    cells = shown.page.locator("tr[data-row='0'] td[data-column]")
    looks = cells.evaluate_all("cells => cells.map(cell => [getComputedStyle(cell).textAlign, cell.className])")
    assert [align for align, _ in looks] == ["right", "left", "left", "right", "right", "left"]
    assert "null" in looks[3][1]


def test_ten_thousand_rows_scroll_and_more_are_announced(shown):
    shown.page.locator("#limit").select_option("10000")
    shown.run("select i, i * 2 as double from range(20000) t(i) order by i")
    assert shown.page.locator("#rows").inner_text() == "first 10,000 rows, there are more"
    table = shown.page.get_by_role("grid")
    assert table.get_attribute("aria-rowcount") == "10001"
    assert len(shown.shown_rows()) < 100
    table.focus()
    shown.page.keyboard.press("Control+End")
    shown.page.locator("tr[data-row='9999']").wait_for()
    assert shown.shown_rows()[-1] == ["9999", "19998"]
    assert shown.page.locator("#cell-value").inner_text() == "19998"


def test_cells_are_reached_and_copied_by_the_keyboard(shown):
    shown.run("select i, 'a' || i as text, null as nothing from range(50) t(i) order by i")
    shown.page.get_by_role("tab", name="Table").focus()
    for _ in range(20):
        shown.page.keyboard.press("Tab")
        if shown.page.evaluate("document.activeElement.getAttribute('role')") == "grid":
            break
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Control+c"):
        shown.page.keyboard.press(key)
    assert shown.page.locator("#cell-value").inner_text() == "a2"
    shown.page.get_by_role("button", name="Copied").wait_for()
    assert shown.page.evaluate("navigator.clipboard.readText()") == "a2"
    assert shown.page.locator("td[aria-selected=true]").inner_text() == "a2"


def test_a_wide_answer_draws_only_the_columns_in_view(shown):
    shown.run(WIDE)
    drawn = shown.shown_rows()
    assert len(drawn) < 60
    assert 5 < len(drawn[0]) < 50
    assert drawn[1][:3] == ["1", "2", "3"]
    grid = shown.page.get_by_role("grid")
    assert grid.get_attribute("aria-colcount") == str(COLUMNS + 1)
    press(shown, "End")
    assert selected(shown) == [0, COLUMNS - 1, str(COLUMNS - 1)]
    assert shown.page.locator("#cell-name").inner_text() == f"c{COLUMNS - 1}"
    assert shown.page.locator("td[aria-selected=true]").get_attribute("aria-colindex") == str(COLUMNS + 1)
    press(shown, "Control+End", "ArrowLeft")
    assert selected(shown) == [199, COLUMNS - 2, str(199 + COLUMNS - 2)]
    press(shown, "Home")
    assert selected(shown) == [199, 0, "199"]
    press(shown, *["ArrowRight"] * 30)
    assert selected(shown) == [199, 30, "229"]
    assert len(shown.shown_rows()[0]) < 50


def test_headings_stay_above_their_columns(shown):
    shown.run(WIDE)
    for scrolled in (0, 5000, 77_777, 10_000_000):
        shown.page.locator(".grid-scroll").evaluate("(box, left) => box.scrollTo(left, 900)", scrolled)
        shown.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        found = shown.page.locator("#grid").evaluate("""grid => {
          const box = grid.querySelector(".grid-scroll").getBoundingClientRect();
          const place = cell => [cell.getBoundingClientRect().left, cell.getBoundingClientRect().right];
          const heads = [...grid.querySelectorAll("thead th[aria-colindex]")];
          const cells = [...grid.querySelectorAll("tr[data-row='40'] > [aria-colindex]")];
          return {
            heads: heads.map(each => [each.getAttribute("aria-colindex"), ...place(each)]),
            cells: cells.map(each => [each.getAttribute("aria-colindex"), ...place(each)]),
            names: heads.slice(1).map(each => [each.getAttribute("aria-colindex"), each.firstChild.textContent]),
            isFull: place(cells[1])[0] <= place(cells[0])[1] && place(cells.at(-1))[1] >= box.right - 20,
          };
        }""")
        assert found["heads"] == found["cells"]
        assert [name for _, name in found["names"]] == [f"c{int(at) - 2}" for at, _ in found["names"]]
        assert found["isFull"], scrolled


def test_moving_the_selection_within_the_view_draws_nothing(shown):
    shown.run(WIDE)
    press(shown, "ArrowDown")
    assert selected(shown) == [1, 0, "1"]
    shown.page.locator("#grid tbody").evaluate(COUNT_DRAWN)
    press(shown, "ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp")
    assert selected(shown) == [2, 1, "3"]
    shown.page.locator("tr[data-row='5'] > td[data-column='2']").click()
    assert selected(shown) == [5, 2, "7"]
    assert shown.page.evaluate("window.drawn") == 0


def test_a_selection_that_was_scrolled_out_of_view_is_there_again(shown):
    shown.run(WIDE)
    press(shown, "ArrowDown", "ArrowRight")
    box = shown.page.locator(".grid-scroll")
    for left, top in ((20_000, 0), (0, 4000)):
        box.evaluate("(box, [left, top]) => box.scrollTo(left, top)", [left, top])
        shown.page.locator("td[aria-selected=true]").wait_for(state="detached")
        assert shown.page.get_by_role("grid").get_attribute("aria-activedescendant") is None
        box.evaluate("box => box.scrollTo(0, 0)")
        shown.page.locator("td[aria-selected=true]").wait_for()
        assert selected(shown) == [1, 1, "2"]


@pytest.mark.parametrize("select", ["click", "dblclick"])
def test_a_long_text_is_cut_in_its_cell_and_whole_in_the_bar_and_the_clipboard(shown, select):
    whole = "0x" + "ab" * 450_000
    shown.run(LONG_TEXT)
    assert shown.shown_rows()[3] == ["3", f"{whole[:200]}…", "z"]
    getattr(shown.page.locator("tr[data-row='3'] > td[data-column='1']"), select)()
    assert shown.page.locator("#cell-value").text_content() == whole
    shown.page.keyboard.press("Control+c")
    shown.page.get_by_role("button", name="Copied").wait_for()
    assert shown.page.evaluate("navigator.clipboard.readText()") == whole


def test_a_selected_part_of_a_text_is_copied_as_it_is(shown):
    shown.run("select 'one two' as text")
    shown.page.locator("td[data-column='0']").dblclick(position={"x": 14, "y": 14})
    shown.page.keyboard.press("Control+c")
    assert shown.page.evaluate("navigator.clipboard.readText()").strip() == "one"
