// The rows of an answer as a table. Only the rows in view are in the document, so 10,000 rows scroll smoothly.
import { make } from "./elements.js";
import { kindOf, shown, typeName } from "./values.js";

const ROW_HEIGHT = 28;
const SPARE_ROWS = 12; // above and below the visible ones, so that fast scrolling shows no empty area
const LOOKED_AT = 200; // rows from which the widths are taken
const WIDEST = 44; // characters of a column; longer values are cut, the cell bar shows them whole

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
    // A click selects its own cell: another one here would draw the rows again, and the click would hit nothing.
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
    this.head.replaceChildren(make("th", { class: "number", role: "columnheader", "aria-label": "Row" }), ...this.columns.map(header));
    const widths = [String(rows.length).length + 3, ...this.columns.map((column, at) => this.#width(column, at))];
    this.widths.replaceChildren(...widths.map((width) => this.#col(width)), make("col"));
    this.head.append(make("th", { class: "rest", role: "presentation" }));
    this.box.style.scrollPaddingLeft = `${widths[0]}ch`; // the row numbers stay in view, cells scroll below them
    this.table.style.minWidth = `${widths.reduce((sum, width) => sum + width, 0)}ch`;
    this.box.scrollTo(0, 0);
    this.drawn = null;
    this.#draw();
  }

  #col(width) {
    const col = make("col");
    col.style.width = `${width}ch`;
    return col;
  }

  #width({ name, type }, at) {
    let most = Math.max(name.length, typeName(type).length * 0.86);
    for (const row of this.rows.slice(0, LOOKED_AT)) most = Math.max(most, shown(row[at], type).length);
    return Math.min(most, WIDEST) + 3.5;
  }

  #draw() {
    if (!this.rows) return;
    const visible = Math.ceil(this.box.clientHeight / ROW_HEIGHT);
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.rows.length, first + visible + 2 * SPARE_ROWS);
    const state = `${first}-${last}-${this.at?.row}-${this.at?.column}`;
    if (state === this.drawn) return;
    this.drawn = state;
    const drawn = this.rows.slice(first, last).map((row, at) => this.#row(row, first + at));
    this.body.replaceChildren(this.#space(first), ...drawn, this.#space(this.rows.length - last));
  }

  #space(rows) {
    const space = make("tr", { class: "space", "aria-hidden": "true" });
    space.style.height = `${rows * ROW_HEIGHT}px`;
    space.hidden = rows === 0;
    return space;
  }

  #row(row, at) {
    const cells = this.columns.map((column, index) => this.#cell(row[index], column, at, index));
    const number = make("th", { class: "number", role: "rowheader", scope: "row" }, String(at + 1));
    return make("tr", { role: "row", "aria-rowindex": at + 2, "data-row": at }, number, ...cells, make("td", { class: "rest", role: "presentation" }));
  }

  #cell(value, { type, kind }, row, column) {
    const isSelected = this.at?.row === row && this.at?.column === column;
    const classes = [kind, value === null ? "null" : "", isSelected ? "selected" : ""].filter(Boolean).join(" ");
    const cell = make("td", { role: "gridcell", class: classes, "data-column": column, "aria-selected": isSelected && "true" }, shown(value, type));
    if (isSelected) cell.id = "selected-cell";
    return cell;
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
    if (far && event.key.toLowerCase() === "c" && this.at && !String(getSelection())) {
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
    this.#reveal(row);
    this.#draw();
    this.body.querySelector("#selected-cell")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.table.setAttribute("aria-activedescendant", "selected-cell");
    this.selected(this.columns[column], this.rows[row][column]);
  }

  /** Scroll so that a row is among the drawn ones, below the header. */
  #reveal(row) {
    const head = this.head.offsetHeight;
    const top = row * ROW_HEIGHT;
    const bottom = top + ROW_HEIGHT - (this.box.clientHeight - head);
    if (this.box.scrollTop > top) this.box.scrollTop = top;
    else if (this.box.scrollTop < bottom) this.box.scrollTop = bottom;
  }
}

function header({ name, type, kind }) {
  return make("th", { role: "columnheader", scope: "col", class: kind, title: `${name}  ${type}` }, make("span", {}, name), make("small", {}, typeName(type)));
}
