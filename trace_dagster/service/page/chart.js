// One line or bar chart of two columns of an answer.
import { byId, option } from "./elements.js";
import { axisNumbers, count, kindOf, plotted, shown } from "./values.js";
import uPlot from "./vendor/uplot.js";

const DAY = 86_400;
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The chart of the answer that is shown. It is drawn when it can be seen. */
export class Chart {
  constructor() {
    this.host = byId("chart");
    this.kind = "line";
    for (const id of ["chart-x", "chart-y"]) byId(id).addEventListener("change", () => this.draw());
    for (const kind of ["line", "bar"]) byId(`chart-${kind}`).addEventListener("click", () => this.#choose(kind));
    dark.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.#fit()).observe(this.host);
  }

  /** Take another answer. Columns that have the same names stay chosen; `wanted` is `{x, y, kind}` by name, or null. */
  show(answer, wanted) {
    const before = { x: this.#name("chart-x"), y: this.#name("chart-y") };
    this.answer = answer;
    const names = answer.columns.map(({ name }) => name);
    const kinds = answer.columns.map(({ type }) => kindOf(type));
    const stays = names.includes(before.x) && names.includes(before.y);
    const chosen = wanted ?? (stays ? before : {});
    const x = index(names, chosen.x) ?? firstOf(kinds, ["time"]) ?? firstOf(kinds, ["number"]) ?? 0;
    const y = index(names, chosen.y) ?? kinds.findIndex((kind, at) => kind === "number" && at !== x);
    fill(byId("chart-x"), names, names.keys(), x);
    const numeric = [...names.keys()].filter((at) => kinds[at] === "number" || answer.columns[at].type === "BOOLEAN");
    fill(byId("chart-y"), names, numeric, y);
    if (wanted?.kind) this.kind = wanted.kind;
    else if (!stays) this.kind = ["time", "number"].includes(kinds[x]) ? "line" : "bar";
    this.draw();
  }

  #name(id) {
    return byId(id).selectedOptions[0]?.textContent;
  }

  #choose(kind) {
    this.kind = kind;
    this.draw();
  }

  /** Draw the chosen columns, if the chart is in view. */
  draw() {
    for (const kind of ["line", "bar"]) byId(`chart-${kind}`).setAttribute("aria-pressed", String(kind === this.kind));
    if (!this.answer || !this.host.clientWidth) return;
    this.plot?.destroy();
    this.plot = null;
    byId("chart-read").textContent = "";
    const [x, y] = [byId("chart-x").value, byId("chart-y").value];
    const points = x && y ? pointsOf(this.answer, Number(x), Number(y)) : null;
    byId("chart-note").textContent = note(this.answer, points);
    this.host.replaceChildren();
    if (!points?.xs.length) return;
    this.plot = new uPlot(this.#options(points), [points.xs, points.ys], this.host);
    this.plot.root.setAttribute("role", "img");
    this.plot.root.setAttribute("aria-label", `${points.y.name} by ${points.x.name}, ${count(points.xs.length)} points`);
  }

  #fit() {
    if (!this.host.clientWidth) return;
    if (!this.plot) this.draw();
    else this.plot.setSize({ width: this.host.clientWidth, height: this.host.clientHeight });
  }

  #options(points) {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: colour("--dim"), font, grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 5 } };
    const isBar = this.kind === "bar";
    const accent = colour("--accent");
    return {
      width: this.host.clientWidth,
      height: this.host.clientHeight,
      padding: [14, 18, 0, 4],
      legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false, points: { size: 8, fill: accent, stroke: colour("--surface"), width: 2 }, drag: { x: true, y: false } },
      scales: { x: xScale(points, isBar), y: { range: (_, low, high) => yRange(low, high, isBar) } },
      series: [
        {},
        {
          label: points.y.name,
          stroke: accent,
          width: isBar ? 0 : 1.75,
          fill: isBar ? accent : colour("--accent-wash"),
          paths: isBar ? uPlot.paths.bars({ size: [0.72, 64], radius: 0.12 }) : undefined,
          points: { show: !isBar && points.xs.length <= 60, size: 5, fill: accent },
        },
      ],
      axes: [
        { ...axis, ...xAxis(points, this.host.clientWidth) },
        { ...axis, size: axisSize, values: (_, splits) => axisNumbers(splits) },
      ],
      hooks: { setCursor: [(plot) => this.#read(plot, points)] },
    };
  }

  #read(plot, points) {
    const row = points.rows[plot.cursor.idx];
    byId("chart-read").textContent = row ? `${shown(row[points.xAt], points.x.type)}: ${shown(row[points.yAt], points.y.type)}` : "";
  }
}

const index = (names, name) => (names.includes(name) ? names.indexOf(name) : undefined);

function firstOf(kinds, wanted) {
  const found = kinds.findIndex((kind) => wanted.includes(kind));
  return found < 0 ? undefined : found;
}

function fill(select, names, indices, chosen) {
  select.replaceChildren(...Array.from(indices, (at) => option(String(at), names[at], { selected: at === chosen })));
}

/** Return the points in the order of x. A text on the x axis is a category, at its row's place. */
function pointsOf({ columns, rows }, xAt, yAt) {
  const [x, y] = [columns[xAt], columns[yAt]];
  const isCategory = !["time", "number"].includes(kindOf(x.type));
  const placed = rows.map((row, at) => ({ row, x: isCategory ? at : plotted(row[xAt], x.type), y: plotted(row[yAt], y.type) }));
  const known = placed.filter((point) => point.x !== null);
  if (!isCategory) known.sort((one, other) => one.x - other.x);
  const left = placed.length - known.filter((point) => point.y !== null).length;
  return { x, y, xAt, yAt, isCategory, left, rows: known.map(({ row }) => row), xs: known.map((point) => point.x), ys: known.map((point) => point.y) };
}

function note({ rows, truncated }, points) {
  if (!points) return "A chart needs a column of numbers.";
  const parts = [];
  if (!rows.length) parts.push("There are no rows.");
  if (points.left) parts.push(`${count(points.left)} of ${count(rows.length)} rows have no value here.`);
  if (truncated) parts.push("Only the rows of the table are drawn; the answer has more.");
  if (points.xs.length > 1) parts.push("Drag to zoom, double-click to reset.");
  return parts.join(" ");
}

function xScale({ isCategory, x, xs }, isBar) {
  const time = !isCategory && kindOf(x.type) === "time";
  if (!isCategory && !isBar && xs.length > 1) return { time };
  const step = xs.length > 1 ? Math.min(...xs.slice(1).map((value, at) => value - xs[at]).filter((gap) => gap > 0), xs.at(-1) - xs[0] || 1) : 1;
  return { time, range: (_, low, high) => [low - step * 0.6, high + step * 0.6] };
}

/** Bars begin at zero; a line has some room above and below. */
function yRange(low, high, isBar) {
  if (low === null) return [0, 1];
  if (low === high) return isBar ? [Math.min(0, low), Math.max(0, high) || 1] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const room = (high - low) * 0.06;
  if (isBar) return [low < 0 ? low - room : 0, high > 0 ? high + room : 0];
  return [low >= 0 && low < (high - low) * 2 ? 0 : low - room, high + room];
}

function xAxis(points, width) {
  if (points.isCategory) {
    const most = Math.max(1, Math.floor(width / 96));
    const every = Math.ceil(points.xs.length / most);
    const label = (at) => shortened(shown(points.rows[at]?.[points.xAt] ?? null, points.x.type));
    return {
      splits: () => points.xs.filter((at) => at % every === 0),
      values: (_, splits) => splits.map((at) => label(at)),
      grid: { show: false },
      size: 30,
    };
  }
  if (kindOf(points.x.type) === "time") return { space: 84, values: (_, splits, __, ___, step) => splits.map((split, at) => timeLabel(split, splits[at - 1], step)) };
  return { space: 84, values: (_, splits) => (splits.some((split) => Math.abs(split) >= 1e12) ? axisNumbers(splits) : splits.map(count)) };
}

const shortened = (text) => (text.length > 13 ? `${text.slice(0, 6)}…${text.slice(-4)}` : text);

/** Return the UTC time of a tick; the date stands only where it changes. */
function timeLabel(split, before, step) {
  const iso = new Date(split * 1000).toISOString();
  if (step >= DAY) return iso.slice(0, 10);
  const clock = iso.slice(11, step < 60 ? 19 : 16);
  const isNewDay = before === undefined || new Date(before * 1000).toISOString().slice(0, 10) !== iso.slice(0, 10);
  return isNewDay ? `${clock}\n${iso.slice(0, 10)}` : clock;
}

/** Return the width of the y axis for its longest label. */
function axisSize(plot, labels) {
  const most = Math.max(0, ...(labels ?? []).map((label) => label.length));
  return Math.max(44, most * 7 + 18);
}
