// The line above the rows that says of which blocks an answer was made.
import { make } from "./elements.js";
import { age, count } from "./values.js";

const MOST_GAPS = 20;

/** Return elements for the member `snapshot` of an answer; none if there is nothing to say. */
export function snapshotLine(snapshot) {
  if (!snapshot) return [];
  const chains = chainParts(snapshot);
  const relations = (snapshot.relations ?? []).map(relation);
  const gaps = (snapshot.relations ?? []).filter((each) => each.missing_blocks > 0).map(missing);
  const notes = (snapshot.relations ?? []).filter((each) => each.note).map(note);
  return [...chains, ...relations, ...gaps, ...notes];
}

function chainParts({ heads = [], cuts = [] }) {
  const ids = new Set([...heads, ...cuts].map((each) => each.chain_id));
  return Array.from(ids, (id) => {
    const own = heads.filter((head) => head.chain_id === id);
    const shown = own.map((head) => `${head.label} ${count(head.number)}`);
    const observed = own.length ? `seen ${age(Math.min(...own.map((head) => head.age_seconds)))} ago` : null;
    const cut = cuts.filter((each) => each.chain_id === id).map(cutText);
    const hashes = own.map((head) => `${head.label} ${head.number}: ${head.hash ?? "hash unknown"}`).join("\n");
    return make("span", { class: "chip chain", title: hashes || null }, make("b", {}, `chain ${id}`), [...cut, ...shown, observed].filter(Boolean).join(" · "));
  });
}

function cutText({ block, time }) {
  const places = [block === undefined ? null : `block ${count(block)}`, time === undefined ? null : time].filter(Boolean);
  return `rows up to ${places.join(" and ")}`;
}

function relation({ name, first_block: first, last_block: last }) {
  const blocks = last === null ? "no blocks" : `blocks ${count(first)} – ${count(last)}`;
  return make("span", { class: "chip" }, make("b", {}, name), blocks);
}

function note({ name, note: text }) {
  return make("details", { class: "chip warning" }, make("summary", {}, `rows of ${name} are left out`), make("span", {}, text));
}

function missing({ name, missing_blocks: blocks, gaps }) {
  const newest = gaps.slice(-MOST_GAPS).map(([start, end]) => `${count(start)} to ${count(end - 1)}`);
  const more = gaps.length > MOST_GAPS ? "older ones, " : "";
  return make(
    "details",
    { class: "chip warning" },
    make("summary", {}, `${name} lacks ${count(blocks)} block${blocks === 1 ? "" : "s"}`),
    make("span", {}, `no row of these is in the answer: ${more}${newest.join(", ")}`),
  );
}
