// What the browser keeps between visits: the text of the editor and the last queries. Nothing of it leaves the browser.

const DRAFT = "trace.draft";
const RECENT = "trace.recent";
const MOST_RECENT = 20;
const LONGEST = 100_000; // characters; longer texts are not kept

function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off
  }
}

function write(name, text) {
  try {
    if (text.length <= LONGEST) localStorage.setItem(name, text);
  } catch {
    // Storage is full or switched off: the page works without it.
  }
}

export const draft = () => read(DRAFT);
export const keepDraft = (text) => write(DRAFT, text);

/** Return the last queries, the newest first. */
export function recent() {
  try {
    const found = JSON.parse(read(RECENT) ?? "[]");
    return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

/** Put a query before the others; an equal one moves to the front. */
export function keepRecent(sql) {
  const found = [sql, ...recent().filter((each) => each !== sql)].slice(0, MOST_RECENT);
  while (found.length > 1 && JSON.stringify(found).length > LONGEST) found.pop();
  write(RECENT, JSON.stringify(found));
}
