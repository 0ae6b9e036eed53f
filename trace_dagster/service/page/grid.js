// The rows of an answer as a table. Only the cells in view are in the document, so 10,000 rows or 3,000 columns scroll smoothly.
import { make } from "./elements.js";
import { kindOf, shown, typeName } from "./values.js";

const ROW_HEIGHT = 28;
const SPARE_ROWS = 12; // above and below the visible ones, so that fast scrolling shows no empty area
const SPARE_WIDTH = 480; // left and right of the visible columns
const LOOKED_AT = 200; // rows from which the widths are taken
const WIDEST = 44; // characters of a column; longer values are cut, the cell bar shows them whole
const MOST_CHARACTERS = 200; // of a value in a cell: a text of megabytes in each row would take seconds to lay out

/** A table of `{columns, rows}` with one selected cell, which the arrow keys move. */
export class Grid {
  /** `selected` is called with the column and value of a cell; `copying` when Ctrl+C is pressed on one. */
  constructor(host, { selected, copying }) {
    this.host = host;
    this.selected = selected;
    this.copying = copying;
    this.body = make("tbody", { role: "rowgroup" });
    this.head = make("tr", { role: "row" });
    this.widths = make("colgroup");
    this.table = make(
      "table",
      { role: "grid", tabindex: "0", "aria-label": "Rows of the answer" },
      this.widths,
      make("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    this.box = make("div", { class: "grid-scroll" }, this.table);
    host.replaceChildren(this.box);
    this.box.addEventListener("scroll", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(this.box);
    this.table.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    // A click selects its own cell: another one here would scroll away from it, and the click would hit nothing.
    this.table.addEventListener("focus", () => this.at || !this.table.matches(":focus-visible") || this.#select(0, 0));
  }

  /** Show another answer, from its first row on. */
  show({ columns, rows }) {
    this.columns = columns.map(({ name, type }) => ({ name, type, kind: kindOf(type) }));
    this.rows = rows;
    this.at = null;
    this.selected(null, null);
    this.table.setAttribute("aria-rowcount", rows.length + 1);
    this.table.setAttribute("aria-colcount", columns.length + 1);
    this.#measure();
    this.box.scrollTo(0, 0);
    this.drawn = null;
    this.#draw();
  }

  /** Set `edges`: where each column begins and the last one ends, in pixels. The row numbers are before the first edge. */
  #measure() {
    const character = widthOfCharacter(this.box);
    const pixels = (characters) => Math.ceil(characters * character);
    let edge = pixels(String(this.rows.length).length + 3);
    this.edges = [edge, ...this.columns.map((column, at) => (edge += pixels(this.#characters(column, at))))];
    this.box.style.scrollPaddingLeft = `${this.edges[0]}px`; // the row numbers stay in view, cells scroll below them
    this.table.style.minWidth = `${edge}px`;
  }

  #characters({ name, type }, at) {
    let most = Math.max(name.length, typeName(type).length * 0.86);
    for (const row of this.rows.slice(0, LOOKED_AT)) most = Math.max(most, shown(row[at], type).length);
    return Math.min(most, WIDEST) + 3.5;
  }

  /** Return the rows and columns in view, with a share of the spare ones around them. `bottom` and `right` are excluded. */
  #inView(share) {
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.box;
    const [rows, width] = [SPARE_ROWS * share, SPARE_WIDTH * share];
    const right = this.edges.findIndex((edge) => edge >= scrollLeft + clientWidth + width);
    return {
      top: Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - rows),
      bottom: Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + rows),
      left: Math.max(0, this.edges.findLastIndex((edge) => edge <= scrollLeft - width)),
      right: right === -1 ? this.columns.length : right,
    };
  }

  /** Draw the cells in view, unless they are drawn. */
  #draw() {
    if (!this.rows) return;
    const wanted = this.#inView(0.5);
    if (this.drawn && holds(this.drawn, wanted)) return;
    this.drawn = this.#inView(1);
    const { top, bottom } = this.drawn;
    this.#drawHead();
    const rows = this.rows.slice(top, bottom).map((row, at) => this.#row(row, top + at));
    this.body.replaceChildren(this.#space(top), ...rows, this.#space(this.rows.length - bottom));
    this.#mark();
  }

  #drawHead() {
    const { left, right } = this.drawn;
    const widths = this.columns.slice(left, right).map((_, at) => this.edges[left + at + 1] - this.edges[left + at]);
    const before = this.edges[left] - this.edges[0];
    const after = this.edges.at(-1) - this.edges[right];
    this.widths.replaceChildren(...this.#line(col(this.edges[0]), col(before), widths.map(col), col(after)), make("col"));
    const number = make("th", { class: "number", role: "columnheader", "aria-label": "Row", "aria-colindex": 1 });
    const headers = this.columns.slice(left, right).map((column, at) => header(column, left + at));
    this.head.replaceChildren(...this.#line(number, blank("th"), headers, blank("th")), blank("th"));
  }

  /** Return the parts of a line, with `before` and `after` if columns are left out there. */
  #line(number, before, drawn, after) {
    const { left, right } = this.drawn;
    return [number, ...(left > 0 ? [before] : []), ...drawn, ...(right < this.columns.length ? [after] : [])];
  }

  #space(rows) {
    const space = make("tr", { class: "space", "aria-hidden": "true" });
    space.style.height = `${rows * ROW_HEIGHT}px`;
    space.hidden = rows === 0;
    return space;
  }

  #row(row, at) {
    const { left, right } = this.drawn;
    const cells = this.columns.slice(left, right).map((column, index) => cell(row[left + index], column, left + index));
    const number = make("th", { class: "number", role: "rowheader", scope: "row", "aria-colindex": 1 }, String(at + 1));
    const line = this.#line(number, blank("td"), cells, blank("td"));
    return make("tr", { role: "row", "aria-rowindex": at + 2, "data-row": at }, ...line, blank("td"));
  }

  /** Mark the selected cell if it is drawn, and no other one. */
  #mark() {
    const before = this.body.querySelector("td.selected");
    before?.classList.remove("selected");
    for (const name of ["id", "aria-selected"]) before?.removeAttribute(name);
    this.table.removeAttribute("aria-activedescendant");
    const marked = this.at && this.body.querySelector(`tr[data-row="${this.at.row}"] > td[data-column="${this.at.column}"]`);
    if (!marked) return;
    marked.classList.add("selected");
    marked.setAttribute("aria-selected", "true");
    marked.id = `cell-${this.at.row}-${this.at.column}`;
    this.table.setAttribute("aria-activedescendant", marked.id);
  }

  #click(event) {
    const cell = event.target.closest("td[data-column]");
    if (!cell) return;
    this.table.focus({ preventScroll: true });
    this.#select(Number(cell.parentElement.dataset.row), Number(cell.dataset.column));
  }

  #key(event) {
    if (!this.rows?.length) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 2);
    const last = this.rows.length - 1;
    const { row, column } = this.at ?? { row: 0, column: 0 };
    const far = event.ctrlKey || event.metaKey;
    const moves = {
      ArrowDown: [row + 1, column],
      ArrowUp: [row - 1, column],
      ArrowRight: [row, column + 1],
      ArrowLeft: [row, column - 1],
      PageDown: [row + page, column],
      PageUp: [row - page, column],
      Home: [far ? 0 : row, 0],
      End: [far ? last : row, this.columns.length - 1],
    };
    if (far && event.key.toLowerCase() === "c" && this.at && !this.#isPartSelected()) {
      this.copying();
    } else if (moves[event.key]) {
      this.#select(...moves[event.key]);
    } else {
      return;
    }
    event.preventDefault();
  }

  #select(row, column) {
    if (!this.rows?.length || !this.columns.length) return;
    row = Math.min(Math.max(row, 0), this.rows.length - 1);
    column = Math.min(Math.max(column, 0), this.columns.length - 1);
    this.at = { row, column };
    this.#reveal(row, column);
    this.#draw();
    this.#mark();
    this.body.querySelector("td.selected")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.selected(this.columns[column], this.rows[row][column]);
  }

  /** Scroll so that a cell is among the drawn ones, below the header and right of the row numbers. */
  #reveal(row, column) {
    const height = this.box.clientHeight - this.head.offsetHeight;
    const width = this.box.clientWidth - this.edges[0];
    const [start, end] = [this.edges[column] - this.edges[0], this.edges[column + 1] - this.edges[0]];
    this.box.scrollTop = nearest(this.box.scrollTop, height, row * ROW_HEIGHT, (row + 1) * ROW_HEIGHT);
    this.box.scrollLeft = nearest(this.box.scrollLeft, width, start, end);
  }

  /** Whether the reader selected some text, which the browser copies. All of a cut text stands for the whole value. */
  #isPartSelected() {
    const text = String(getSelection()).replace(/…$/, "");
    const whole = shown(this.rows[this.at.row][this.at.column], this.columns[this.at.column].type);
    return text !== "" && (whole.length <= MOST_CHARACTERS || text !== whole.slice(0, MOST_CHARACTERS));
  }
}

function cell(value, { type, kind }, column) {
  const text = shown(value, type);
  const drawn = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
  return make("td", { role: "gridcell", class: value === null ? `${kind} null` : kind, "data-column": column, "aria-colindex": column + 2 }, drawn);
}

function header({ name, type, kind }, column) {
  const attributes = { role: "columnheader", scope: "col", class: kind, title: `${name}  ${type}`, "aria-colindex": column + 2 };
  return make("th", attributes, make("span", {}, name), make("small", {}, typeName(type)));
}

/** Return a cell that fills the width of columns which are not drawn, or the rest of the table. */
const blank = (tag) => make(tag, { class: "rest", role: "presentation" });

function col(width) {
  const element = make("col");
  element.style.width = `${width}px`;
  return element;
}

/** Return whether the drawn area has all of the wanted one. */
function holds(drawn, wanted) {
  return drawn.top <= wanted.top && drawn.bottom >= wanted.bottom && drawn.left <= wanted.left && drawn.right >= wanted.right;
}

/** Return the least scrolling, from `scrolled` on, that shows what lies from `start` to `end`, or the start of it. */
function nearest(scrolled, size, start, end) {
  return Math.min(start, Math.max(scrolled, end - size));
}

/** Return the width of one character in an element, whose font is monospaced. */
function widthOfCharacter(element) {
  const context = make("canvas").getContext("2d");
  context.font = getComputedStyle(element).font;
  return context.measureText("0").width;
}
