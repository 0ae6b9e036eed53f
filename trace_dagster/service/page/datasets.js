// The list of datasets: per chain, with coverage, freshness and columns.
import { byId, make } from "./elements.js";
import { quoted, sqlName } from "./completion.js";
import { age, bytes, count, plural, typeName } from "./values.js";

const AT_TIP_BLOCKS = 3;
const STALE_SECONDS = 600;

/** The list on the left. Clicking a name puts it into the editor. */
export class DatasetList {
  /** `inserted` is called with the SQL name of a dataset or column that was chosen. */
  constructor(inserted) {
    this.inserted = inserted;
    this.open = new Set();
    this.datasets = [];
    byId("datasets-filter").addEventListener("input", () => this.#draw());
    const fold = byId("datasets-fold");
    fold.addEventListener("click", () => {
      const isOpen = fold.getAttribute("aria-expanded") === "true";
      fold.setAttribute("aria-expanded", String(!isOpen));
      fold.textContent = isOpen ? "Show" : "Hide";
    });
  }

  /** Show these datasets; those whose columns were open stay open. */
  show(datasets) {
    this.datasets = datasets;
    this.#draw();
  }

  /** Show a text in the list's place. */
  say(text) {
    byId("datasets").replaceChildren(make("p", { class: "dim" }, text));
  }

  #draw() {
    const wanted = byId("datasets-filter").value.trim().toLowerCase();
    const found = this.datasets.filter((each) => matches(each, wanted));
    if (!found.length) {
      this.say(this.datasets.length ? "No dataset or column has this in its name." : "There are no datasets yet. Register a job with `trace-lite apply`.");
      return;
    }
    const focused = document.activeElement?.dataset?.focus;
    byId("datasets").replaceChildren(...Array.from(new Set(found.map((each) => each.chain)), (chain) => this.#chain(chain, found, wanted)));
    if (focused) [...byId("datasets").querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === focused)?.focus();
  }

  #chain(chain, found, wanted) {
    const own = found.filter((each) => each.chain === chain);
    const all = this.datasets.filter((each) => each.chain === chain);
    const scale = scaleOf(all);
    const name = own[0].chainName;
    return make(
      "section",
      { class: "chain-group" },
      make("h3", {}, name && name !== `chain ${chain}` ? `${name} ` : "chain ", make("span", {}, String(chain))),
      make("ul", {}, ...own.map((each) => this.#item(each, scale, wanted))),
    );
  }

  #item(dataset, scale, wanted) {
    const isOpen = this.open.has(dataset.name);
    const name = sqlName(dataset);
    const columns = make("ul", { class: "columns-list", hidden: !isOpen });
    if (isOpen) columns.append(...this.#columns(dataset, wanted));
    const toggle = make(
      "button",
      {
        class: "toggle", type: "button", "aria-expanded": String(isOpen), "aria-label": `Columns of ${dataset.name}`, "data-focus": `${dataset.name} columns`,
        onclick: () => this.#toggle(dataset.name),
      },
    );
    const insert = make("button", { class: "name", type: "button", title: `Insert ${name}`, "data-focus": dataset.name, onclick: () => this.inserted(name) }, dataset.key);
    return make(
      "li",
      { class: "dataset" },
      make("div", { class: "dataset-line" }, toggle, insert, freshness(dataset)),
      coverageBar(dataset, scale),
      make("p", { class: "numbers" }, ...numbers(dataset)),
      columns,
    );
  }

  #columns(dataset, wanted) {
    return dataset.columns.map(({ name, type, description, unit }) =>
      make(
        "li",
        { class: wanted && name.toLowerCase().includes(wanted) ? "match" : null },
        make("button", { type: "button", title: [description, unit].filter(Boolean).join(", ") || null, "data-focus": `${dataset.name} ${name}`, onclick: () => this.inserted(quoted(name)) },
          make("span", {}, name), make("small", {}, typeName(type))),
      ),
    );
  }

  #toggle(name) {
    if (!this.open.delete(name)) this.open.add(name);
    this.#draw();
  }
}

function matches(dataset, wanted) {
  return !wanted || dataset.name.toLowerCase().includes(wanted) || dataset.columns.some(({ name }) => name.toLowerCase().includes(wanted));
}

/** Return the blocks that a bar of a chain stands for, so that the bars of a chain can be compared. */
function scaleOf(datasets) {
  const starts = datasets.flatMap((each) => [each.from, each.first]).filter((block) => block !== null);
  const ends = datasets.flatMap((each) => [each.last, each.to === null ? null : each.to - 1, ...each.heads.map((head) => head.number)]).filter((block) => block !== null && block !== undefined);
  const start = Math.min(...starts);
  return { start, end: Math.max(...ends, start) + 1 };
}

/** Return the bar: committed blocks, hot blocks and gaps, on the chain's scale. Only the newest gaps are known one by one. */
function coverageBar(dataset, { start, end }) {
  const bar = make("div", { class: "coverage", role: "img", "aria-label": coverageText(dataset), title: coverageText(dataset) });
  if (dataset.first === null || end <= start) return bar;
  const part = (kind, from, to) => {
    const piece = make("i", { class: kind });
    piece.style.left = `${(100 * (from - start)) / (end - start)}%`;
    piece.style.width = `${(100 * (to - from)) / (end - start)}%`;
    return piece;
  };
  const hot = dataset.hotFrom ?? dataset.last + 1;
  const first = Math.min(dataset.first, dataset.from ?? dataset.first);
  const known = lacksOlder(dataset) ? (dataset.gaps[0]?.[0] ?? dataset.last + 1) : first;
  if (known > first) {
    const partly = part("partly", first, known);
    partly.title = `${dataset.name} has gaps up to block ${count(known - 1)} that are not shown one by one`;
    bar.append(partly);
  }
  bar.append(part("gap", known, dataset.last + 1));
  for (const [from, to] of without([Math.max(dataset.first, known), dataset.last + 1], dataset.gaps)) {
    if (from < hot) bar.append(part("committed", from, Math.min(to, hot)));
    if (to > hot) bar.append(part("hot", Math.max(from, hot), to));
  }
  return bar;
}

/** Return whether there are gaps before the first known one: the service names the newest hundred, and counts all blocks. */
function lacksOlder({ gaps, missing }) {
  return missing > gaps.reduce((sum, [from, to]) => sum + to - from, 0);
}

/** Return the parts of a range that lie in none of the gaps, which are in ascending order. */
function without([start, end], gaps) {
  const parts = [];
  for (const [from, to] of gaps) {
    if (from > start) parts.push([start, Math.min(from, end)]);
    start = Math.max(start, to);
  }
  if (start < end) parts.push([start, end]);
  return parts;
}

function coverageText({ name, first, last, hotFrom, gaps, missing }) {
  if (first === null) return `${name} has no blocks yet`;
  const hot = hotFrom === null ? "" : `, hot from ${count(hotFrom)}`;
  const newest = gaps.slice(-3).map(([start, end]) => `${count(start)} to ${count(end - 1)}`);
  const lacks = missing ? `, lacks ${plural(missing, "block")} (${newest.join(", ")}${gaps.length > 3 ? " and older ones" : ""})` : "";
  return `${name} has blocks ${count(first)} to ${count(last)}${hot}${lacks}`;
}

function numbers({ first, last, missing, rows, bytes: size, isDerived }) {
  if (first === null) return ["no blocks yet"];
  const parts = [`${count(first)} – ${count(last)}`];
  if (rows !== null) parts.push(plural(rows, "row"));
  if (size !== null) parts.push(bytes(size));
  if (isDerived) parts.push("derived");
  const lacks = missing ? [make("span", { class: "lacks" }, ` · ${count(missing)} missing`)] : [];
  return [parts.join(" · "), ...lacks];
}

/** Return a dot and words: how old the last block is, and for a dataset with hot rows how far behind the head. */
function freshness({ last, hotFrom, lastBlockAge, heads }) {
  if (last === null) return make("span", { class: "fresh none" }, "empty");
  const head = Math.max(...heads.map(({ number }) => number), -1);
  const isFollowed = head >= 0 && hotFrom !== null;
  const behind = head - last;
  const old = lastBlockAge === null ? null : age(lastBlockAge);
  if (isFollowed && behind <= AT_TIP_BLOCKS) {
    const isQuiet = lastBlockAge !== null && lastBlockAge > STALE_SECONDS;
    return make("span", { class: isQuiet ? "fresh late" : "fresh live", title: `the head is ${count(head)}` }, old ? `${old} old` : "at the head");
  }
  if (isFollowed) return make("span", { class: "fresh late", title: old ? `its last block is ${old} old` : null }, `${count(behind)} behind`);
  return make("span", { class: "fresh none" }, old ? `${old} old` : "not followed");
}
