// How values of an answer are shown, by their DuckDB types.

const INTEGERS = /^U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)$|^BIGNUM$/;
const NUMBERS = /^(FLOAT|DOUBLE|DECIMAL\(.*\))$/;
const TIMES = /^(TIMESTAMP|DATE)/;
const WITHOUT_ZONE = /^\d{4,6}-\d\d-\d\dT[\d:.]+$/;
const grouped = new Intl.NumberFormat("en-US");
const plain = new Intl.NumberFormat("en-US", { maximumFractionDigits: 6 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });

/** Return "number", "time", "binary" or "other": what a column's values are. */
export function kindOf(type) {
  if (INTEGERS.test(type) || NUMBERS.test(type)) return "number";
  if (TIMES.test(type)) return "time";
  return type === "BLOB" ? "binary" : "other";
}

/** Return the text of a value as a cell shows it. */
export function shown(value, type) {
  if (value === null) return "NULL";
  if (typeof value === "object") return JSON.stringify(value);
  return kindOf(type) === "time" ? shownTime(String(value)) : String(value);
}

/** Return the text that is copied: the value as the service gave it, nothing for NULL. */
export function copied(value) {
  if (value === null) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Return a value as a number for a chart, or null. A text of more than 2^53 becomes the nearest double. */
export function plotted(value, type) {
  if (value === null || value === undefined) return null;
  if (kindOf(type) === "time") return seconds(String(value));
  const number = typeof value === "boolean" ? Number(value) : typeof value === "object" ? NaN : Number(value);
  return Number.isFinite(number) ? number : null;
}

/** Return an ISO time as seconds since 1970, null for infinity and the like. A time without a zone is UTC. */
function seconds(text) {
  const milliseconds = Date.parse(WITHOUT_ZONE.test(text) ? `${text}Z` : text);
  return Number.isNaN(milliseconds) ? null : milliseconds / 1000;
}

function shownTime(text) {
  return text.replace("T", " ").replace(/(\+00:00|Z)$/, "Z");
}

/** Return the shortest name that DuckDB has for a type. */
export const typeName = (type) => type.replaceAll("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ");

/** Return a count with its groups of thousands. */
export const count = (number) => grouped.format(number);

/** Return the numbers of an axis in a few characters each, all in one form. */
export function axisNumbers(numbers) {
  const size = Math.max(...numbers.map(Math.abs));
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return numbers.map((number) => number.toExponential().replace("e+", "e"));
  return numbers.map((number) => (size >= 1e6 ? compact : plain).format(number));
}

/** Return bytes in the unit that a reader likes. */
export function bytes(number) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  for (; number >= 1000 && at < units.length - 1; at += 1) number /= 1000;
  return `${number.toFixed(at === 0 || number >= 100 ? 0 : 1)} ${units[at]}`;
}

/** Return a number of seconds in words, such as "4 min". */
export function age(secs) {
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86_400, 3600, "h"], [2 * 31_536_000, 86_400, "d"], [Infinity, 31_536_000, "y"]];
  const [, unit, name] = steps.find(([below]) => Math.abs(secs) < below);
  return `${Math.max(0, Math.round(secs / unit))} ${name}`;
}

/** Return `1 row`, `2 rows`. */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
