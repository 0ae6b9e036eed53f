// Runs one query at a time: sends it, asks how far it is, and cancels it.
import { ask, askJson, newId, Refused } from "./service.js";

const FIRST_LOOK_MS = 400; // quick queries end before anybody would read their state
const LOOK_EVERY_MS = 700;
const TICK_MS = 100;
const CANCEL_WAIT_MS = 2000;

/** The query that runs, if one does. */
export class Running {
  /** `told(text)` is called with the state while it changes. */
  constructor(told) {
    this.told = told;
    this.control = null;
  }

  get isRunning() {
    return this.control !== null;
  }

  /** Run a query and return its answer, with the seconds that it took. Throws Refused; null means cancelled. */
  async run(request) {
    const control = new AbortController();
    const id = newId();
    Object.assign(this, { control, id, state: "sent", began: performance.now() });
    const ticking = setInterval(() => this.#tell(), TICK_MS);
    const looking = this.#look(control, id);
    try {
      const answer = await askJson("v1/query", { method: "POST", json: request, headers: { "Trace-Query-Id": id }, signal: control.signal });
      return { answer, seconds: this.#seconds() };
    } catch (error) {
      if (control.signal.aborted || this.isCancelled(error)) return null;
      throw error;
    } finally {
      clearInterval(ticking);
      this.control = null;
      control.abort(); // ends the look-ups of the state
      await looking;
    }
  }

  /** Cancel the query. The service is told, and the request is ended, so that either of them suffices. */
  async cancel() {
    const { control, id } = this;
    if (!control) return;
    this.state = "cancelling";
    this.#tell();
    const limit = AbortSignal.timeout(CANCEL_WAIT_MS);
    try {
      await ask(`v1/queries/${id}`, { method: "DELETE", signal: limit });
    } catch {
      // It ended in the meantime, or the service is away: the request ends below.
    }
    control.abort();
  }

  isCancelled(error) {
    return this.state === "cancelling" && error instanceof Refused;
  }

  async #look(control, id) {
    await pause(FIRST_LOOK_MS, control.signal);
    while (!control.signal.aborted) {
      try {
        const { state, position } = await askJson(`v1/queries/${id}`, { signal: control.signal });
        if (this.state !== "cancelling") this.state = stateText(state, position);
      } catch {
        // Without an answer the last known state stays.
      }
      await pause(LOOK_EVERY_MS, control.signal);
    }
  }

  #seconds() {
    return (performance.now() - this.began) / 1000;
  }

  #tell() {
    if (this.control) this.told(`${this.state} · ${this.#seconds().toFixed(1)} s`);
  }
}

function stateText(state, position) {
  const isWaiting = state === "queued" || state === "waiting";
  return isWaiting && Number.isInteger(position) ? `queued, position ${position}` : String(state);
}

/** Wait, or until the signal comes. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
