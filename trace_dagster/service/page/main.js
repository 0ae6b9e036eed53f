// Brings the parts of the page together.
import { Chart } from "./chart.js";
import { completionSource } from "./completion.js";
import { DatasetList } from "./datasets.js";
import { Downloads } from "./downloads.js";
import { Editor } from "./editor.js";
import { byId, copy } from "./elements.js";
import { examplesFor } from "./examples.js";
import { Grid } from "./grid.js";
import { draft, keepDraft, keepRecent, recent } from "./kept.js";
import { datasetsOf } from "./lake.js";
import { logIn, logOut } from "./login.js";
import { Menu } from "./menu.js";
import { Running } from "./running.js";
import { askJson, Refused } from "./service.js";
import { snapshotLine } from "./snapshot.js";
import { age, copied, count, plural, shown } from "./values.js";

const DATASETS_EVERY_MS = 10_000;
const COPIED_MS = 1500;
const isMac = /Mac|iPhone|iPad/.test(navigator.platform);

const exampleMenu = new Menu(byId("examples"), "No example fits the datasets of this lake.");
const recentMenu = new Menu(byId("recent"), "Queries that you ran are kept here, in this browser only.");
const known = { datasets: [], functions: [] };
let answered = null; // {request, answer} of the rows that are shown
let wantedChart = null; // what the chosen example draws
let cell = null;

const editor = new Editor(byId("editor"), { text: draft() ?? "", run, changed: keepDraft, complete: completionSource(() => known) });
const list = new DatasetList((text) => editor.insert(text));
const grid = new Grid(byId("grid"), { selected: showCell, copying: copyCell });
const chart = new Chart();
const running = new Running((text) => (byId("status").textContent = text));
const downloads = new Downloads({ asked: () => answered.request, failed: showError });

/** Return the members of a request, without those that are not asked for. */
function requestOf() {
  const asOf = byId("as-of").value.trim();
  return {
    sql: editor.text,
    limit: Number(byId("limit").value),
    ...(asOf ? { as_of: /^\d+$/.test(asOf) ? Number(asOf) : asOf } : {}),
    ...(byId("finalized").checked ? { finalized_only: true } : {}),
  };
}

async function run() {
  if (running.isRunning || !editor.text.trim()) return;
  const request = requestOf();
  hideError();
  setRunning(true);
  let ended = null;
  let failure = null;
  try {
    ended = await running.run(request);
  } catch (error) {
    failure = error;
  }
  setRunning(false);
  if (failure) {
    byId("status").textContent = "failed";
    showError(failure);
    return;
  }
  if (ended === null) {
    byId("status").textContent = "cancelled";
    return;
  }
  keepRecent(request.sql);
  fillRecent();
  showAnswer(request, ended);
}

function setRunning(isRunning) {
  byId("run").disabled = isRunning;
  byId("cancel").disabled = !isRunning;
  byId("progress").hidden = !isRunning;
  byId("result").classList.toggle("old", isRunning);
}

function showAnswer(request, { answer, seconds }) {
  answered = { request, answer };
  byId("empty").hidden = true;
  byId("result").hidden = false;
  byId("status").textContent = `done · ${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const rows = plural(answer.rows.length, "row");
  byId("rows").textContent = answer.truncated ? `first ${rows}, there are more` : rows;
  byId("rows").classList.toggle("truncated", answer.truncated);
  byId("snapshot").replaceChildren(...snapshotLine(answer.snapshot));
  grid.show(answer);
  chart.show(answer, wantedChart);
  wantedChart = null;
}

function showError(error) {
  const isLoggedOut = error instanceof Refused && error.status === 401;
  if (isLoggedOut) askForLogin();
  const title = error instanceof Refused && error.status ? `${error.status} ${error.code.replaceAll("_", " ")}`.trim() : "No answer";
  const wait = error.retryAfter ? ` (try again in ${error.retryAfter} s)` : "";
  byId("error-title").textContent = title;
  byId("error-text").textContent = `${error.message}${wait}`;
  byId("error").hidden = false;
  byId("empty").hidden = true;
  byId("result").classList.add("old");
}

function hideError() {
  byId("error").hidden = true;
}

function showCell(column, value) {
  cell = column === null ? null : { value };
  byId("cell-name").textContent = column?.name ?? "";
  byId("cell-value").textContent = column === null ? "Select a cell to read it whole" : shown(value, column.type);
  byId("cell-value").classList.toggle("null", column === null || value === null);
  byId("cell-copy").disabled = column === null;
}

async function copyCell() {
  await copy(copied(cell.value));
  byId("cell-copy").textContent = "Copied";
  setTimeout(() => (byId("cell-copy").textContent = "Copy"), COPIED_MS);
}

/** Show the table or the chart. */
function showView(name) {
  for (const each of ["table", "chart"]) {
    byId(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    byId(`tab-${each}`).tabIndex = each === name ? 0 : -1;
    byId(`view-${each}`).hidden = each !== name;
  }
  if (name === "chart") chart.draw();
}

async function loadDatasets() {
  let answer;
  try {
    answer = await askJson("v1/datasets");
  } catch (error) {
    if (error.status === 401) askForLogin();
    if (!known.datasets.length) list.say(error.status === 401 ? "Log in to see the datasets." : error.message);
    return;
  }
  closeLogin();
  const state = (datasets) => datasets.map(({ name, last }) => [name, last !== null]).join();
  const before = state(known.datasets);
  known.datasets = datasetsOf(answer);
  const isNew = state(known.datasets) !== before;
  list.show(known.datasets);
  showHeads();
  if (isNew) fillExamples();
}

function showHeads() {
  const chains = new Map(known.datasets.map((each) => [each.chain, each.heads]));
  const texts = Array.from(chains, ([chain, heads]) => {
    const head = heads.reduce((best, each) => (each.number > (best?.number ?? -1) ? each : best), null);
    return head && `chain ${chain} at block ${count(head.number)}, ${age(head.age_seconds)} ago`;
  });
  byId("heads").textContent = texts.filter(Boolean).join(" · ");
}

function fillExamples() {
  const examples = examplesFor(known.datasets);
  exampleMenu.fill(examples.map((example) => ({ title: example.title, choose: () => take(example) })));
  if (!editor.text && examples.length) take(examples[0]);
}

function take({ sql, chart: chosen }) {
  editor.text = sql;
  wantedChart = chosen ?? null;
  editor.focus();
}

function fillRecent() {
  recentMenu.fill(recent().map((sql) => ({ title: firstWords(sql), choose: () => take({ sql }) })));
}

const firstWords = (sql) => sql.replace(/\s+/g, " ").trim().slice(0, 90);

function askForLogin() {
  byId("logout").hidden = true;
  if (!byId("login").open) byId("login").showModal();
}

function closeLogin() {
  byId("logout").hidden = false;
  if (byId("login").open) byId("login").close();
}

async function submitLogin(event) {
  event.preventDefault();
  byId("login-error").textContent = "";
  try {
    await logIn(byId("login-code").value);
  } catch (error) {
    byId("login-error").textContent = error.message;
    return;
  }
  byId("login-code").value = "";
  hideError();
  await loadDatasets();
  editor.focus();
}

async function endSession() {
  try {
    await logOut();
  } catch (error) {
    showError(error);
    return;
  }
  location.reload();
}

function globalKey(event) {
  if (event.defaultPrevented || byId("login").open) return;
  const isTyping = event.composedPath()[0].matches?.("input, select, textarea, [contenteditable='true']");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  else if (event.key === "Escape" && running.isRunning) running.cancel();
  else if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) findDataset();
  else return;
  event.preventDefault();
}

function findDataset() {
  if (byId("datasets-fold").getAttribute("aria-expanded") === "false") byId("datasets-fold").click();
  byId("datasets-filter").focus();
}

function listen() {
  byId("skip").addEventListener("click", (event) => (event.preventDefault(), editor.focus()));
  byId("run").addEventListener("click", run);
  byId("cancel").addEventListener("click", () => running.cancel());
  byId("cell-copy").addEventListener("click", copyCell);
  byId("logout").addEventListener("click", endSession);
  byId("login-form").addEventListener("submit", submitLogin);
  byId("login").addEventListener("cancel", (event) => event.preventDefault()); // nothing works without a login
  for (const [name, other] of [["table", "chart"], ["chart", "table"]]) {
    byId(`tab-${name}`).addEventListener("click", () => showView(name));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      showView(other);
      byId(`tab-${other}`).focus();
    });
  }
  for (const id of ["as-of", "limit", "finalized"]) byId(id).addEventListener("keydown", (event) => event.key === "Enter" && !event.ctrlKey && !event.metaKey && run());
  document.addEventListener("keydown", globalKey);
}

async function begin() {
  byId("run").querySelector("kbd").textContent = isMac ? "⌘⏎" : "Ctrl ⏎";
  byId("empty-run").textContent = isMac ? "⌘⏎" : "Ctrl ⏎";
  listen();
  fillRecent();
  fillExamples();
  editor.focus();
  list.say("Loading …");
  known.functions = await askJson("page/functions.json").catch(() => []);
  await loadDatasets();
  setInterval(() => !document.hidden && !byId("login").open && loadDatasets(), DATASETS_EVERY_MS);
}

begin();
