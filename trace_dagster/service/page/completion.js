// Proposes tables, columns and functions while SQL is written.
import { typeName } from "./values.js";

// The keywords of a SELECT that are worth proposing; the dialect knows several hundred more.
const KEYWORDS =
  ("select from where group by order by having limit offset join left join inner join full join cross join asof join on using as with and or not in " +
    "between like ilike is null is not null case when then else end distinct union all except intersect qualify over partition by rows range filter " +
    "exclude replace asc desc nulls first nulls last cast interval date timestamp true false exists values pivot unpivot describe summarize show all tables explain")
    .match(/(?:group|order|partition) by|(?:left|inner|full|cross|asof) join|is not null|is null|nulls (?:first|last)|union all|show all tables|\S+/g);
const NO_ALIAS = new Set(
  "on using where group order having limit offset join left right inner outer full cross asof positional semi anti natural union except intersect qualify window sample tablesample as select from set values pivot unpivot".split(" "),
);
const NAME = String.raw`(?:"(?:[^"]|"")*"|[A-Za-z_]\w*)`;
const TABLE = new RegExp(String.raw`(?:\b(?:from|join)|,)\s+(${NAME}(?:\s*\.\s*${NAME})?)(?:\s+(?:as\s+)?(${NAME}))?`, "gi");
const SKIPPED = /--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|'(?:[^']|'')*(?:'|$)/g;
const PLAIN = /^[a-z_][a-z0-9_]*$/;
const BEFORE = new RegExp(String.raw`((?:${NAME}\s*\.\s*){0,2})([A-Za-z_]\w*)?$`);

/** Return an identifier as SQL writes it: in quotes, unless it is a plain word. */
export const quoted = (name) => (PLAIN.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

/** Return the shortest name of a dataset in SQL. */
export const sqlName = ({ short, schema, key }) => (short ? quoted(short) : `${schema}.${quoted(key)}`);

const bare = (name) => (name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name.toLowerCase());
const parts = (path) => (path.match(new RegExp(NAME, "g")) ?? []).map(bare);

/** Return the relations that a text names, by alias and by name: Map of a lower-case name to a dataset. */
export function named(text, datasets) {
  const found = new Map();
  for (const [, path, alias] of text.replace(SKIPPED, (skipped) => " ".repeat(skipped.length)).matchAll(TABLE)) {
    const dataset = relation(parts(path), datasets);
    if (!dataset) continue;
    found.set(parts(path).at(-1), dataset);
    if (alias && !NO_ALIAS.has(alias.toLowerCase())) found.set(bare(alias), dataset);
  }
  return found;
}

/** Return the dataset that `chain_1.logs` or `logs` names, if there is one. */
function relation(path, datasets) {
  if (path.length === 2) return datasets.find((each) => each.schema === path[0] && each.key === path[1]);
  return datasets.find((each) => each.short === path[0]);
}

/** Return a CodeMirror completion source over what `known()` gives: `{datasets, functions}`. */
export function completionSource(known) {
  return (context) => {
    const text = context.state.doc.toString();
    const [, path, word = ""] = BEFORE.exec(text.slice(0, context.pos));
    if (!path && !word && !context.explicit) return null;
    if (insideText(text.slice(0, context.pos))) return null;
    const { datasets, functions } = known();
    const tables = named(text, datasets);
    const options = path ? members(parts(path), datasets, tables) : everything(datasets, functions, tables);
    return options.length ? { from: context.pos - word.length, options, validFor: /^\w*$/ } : null;
  };
}

/** Return whether the end of a text is within a quoted text or a comment. */
function insideText(text) {
  const last = [...text.matchAll(SKIPPED)].at(-1);
  if (!last || last.index + last[0].length < text.length) return false;
  return last[0].startsWith("--") || !/^(?:'(?:[^']|'')*'|\/\*[\s\S]*\*\/)$/.test(last[0]);
}

function members(path, datasets, tables) {
  const dataset = path.length === 2 ? relation(path, datasets) : tables.get(path[0]);
  if (dataset) return columns(dataset, 2);
  if (path.length !== 1) return [];
  return datasets.filter((each) => each.schema === path[0]).map((each) => table(each, quoted(each.key)));
}

function everything(datasets, functions, tables) {
  const near = [...new Set(tables.values())].flatMap((dataset) => columns(dataset, 3));
  const unique = [...new Map(near.map((each) => [each.label, each])).values()];
  const aliases = [...tables.keys()].map((label) => ({ label, type: "variable", detail: "in this query", boost: 1 }));
  const schemas = [...new Set(datasets.map((each) => each.schema))].map((label) => ({ label, type: "namespace", detail: "chain" }));
  return [
    ...unique,
    ...aliases,
    ...datasets.filter((each) => each.short && !tables.has(each.short)).map((each) => table(each, quoted(each.short))),
    ...schemas,
    ...functions.map((label) => ({ label, apply: applyCall, type: "function", boost: -1 })),
    ...KEYWORDS.map((label) => ({ label, type: "keyword" })),
  ];
}

const columns = (dataset, boost) =>
  dataset.columns.map(({ name, type }) => ({ label: name, apply: quoted(name), type: "property", detail: typeName(type), boost }));

const table = (dataset, apply) => ({ label: apply, apply, type: "class", detail: dataset.name, boost: 1 });

/** Write a function with its parentheses, and put the cursor between them. */
function applyCall(view, { label }, from, to) {
  const isCall = view.state.sliceDoc(to, to + 1) === "(";
  const insert = isCall ? label : `${label}()`;
  view.dispatch({ changes: { from, to, insert }, selection: { anchor: from + label.length + 1 }, userEvent: "input.complete" });
}
