// Downloads the whole answer of a query as CSV or Parquet. A broken transfer is an error and leaves no file.
import { byId, make } from "./elements.js";
import { ask, chunks, newId } from "./service.js";
import { bytes } from "./values.js";

const PART_BYTES = 16 * 1024 * 1024; // a Blob may lie on disk, the chunks before it lie in memory
const TYPES = { csv: "text/csv", parquet: "application/vnd.apache.parquet" };
const PARQUET_END = [0x50, 0x41, 0x52, 0x31]; // "PAR1"
const SHOW_EVERY_MS = 150;

/** The two buttons, their progress and their stop. */
export class Downloads {
  /** `asked` returns the members of the request of the answer that is shown; `failed` gets an error to show. */
  constructor({ asked, failed }) {
    this.asked = asked;
    this.failed = failed;
    for (const format of Object.keys(TYPES)) byId(`download-${format}`).addEventListener("click", () => this.#start(format));
    byId("transfer-stop").addEventListener("click", () => this.stop());
  }

  /** End the running download, if there is one. */
  stop() {
    this.control?.abort();
  }

  async #start(format) {
    this.control = new AbortController();
    this.#show(true, `${format}: waiting for the first rows`);
    try {
      const file = await this.#fetch(format, this.control.signal);
      save(file, `${fileName()}.${format}`);
      this.#show(false, `${format}: ${bytes(file.size)} saved`);
    } catch (error) {
      const isStopped = this.control.signal.aborted;
      this.#show(false, isStopped ? "stopped, nothing was saved" : "failed, nothing was saved");
      if (!isStopped) this.failed(error);
    }
  }

  async #fetch(format, signal) {
    const { limit: _, ...request } = this.asked();
    const headers = { "Trace-Query-Id": newId() };
    const response = await ask("v1/query", { method: "POST", json: { ...request, format }, headers, signal });
    const parts = [];
    let recent = [];
    let [recentBytes, total, shownAt, last] = [0, 0, 0, new Uint8Array()];
    for await (const chunk of chunks(response, signal)) {
      recent.push(chunk);
      recentBytes += chunk.length;
      total += chunk.length;
      last = chunk.length >= 4 ? chunk.slice(-4) : Uint8Array.of(...last, ...chunk).slice(-4);
      if (recentBytes >= PART_BYTES) {
        parts.push(new Blob(recent));
        [recent, recentBytes] = [[], 0];
      }
      if (performance.now() - shownAt > SHOW_EVERY_MS) {
        shownAt = performance.now();
        byId("transfer").textContent = `${format}: ${bytes(total)}`;
      }
    }
    if (format === "parquet" && !PARQUET_END.every((byte, at) => byte === last[at])) throw new Error("the file came without its end: the answer is not complete, try again");
    return new Blob([...parts, ...recent], { type: TYPES[format] });
  }

  #show(isRunning, text) {
    byId("transfer").textContent = text;
    byId("transfer-stop").hidden = !isRunning;
    for (const format of Object.keys(TYPES)) byId(`download-${format}`).disabled = isRunning;
  }
}

function fileName() {
  return `query_${new Date().toISOString().slice(0, 19).replace(/[-:]/g, "")}Z`;
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click
}
