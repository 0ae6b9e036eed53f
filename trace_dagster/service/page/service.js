// Requests to the service. An answer that is not 2xx, and a service that does not answer, is a Refused.

const LOST = "the service does not answer: check that it is running, then try again";
const BROKEN = "the service ended the transfer early: the answer is not complete, try again";

/** An error as the service gave it. Its texts are shown as text, never as HTML. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Send a request and return the response. Throws Refused; an abort is thrown as the browser gives it. */
export async function ask(path, { method = "GET", json, headers = {}, signal } = {}) {
  const body = json === undefined ? undefined : JSON.stringify(json);
  const sent = body === undefined ? headers : { "Content-Type": "application/json", ...headers };
  let response;
  try {
    response = await fetch(path, { method, body, headers: sent, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "unreachable", LOST);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Send a request and return the JSON of its answer. */
export async function askJson(path, options = {}) {
  const response = await ask(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused(0, "broken", BROKEN);
  }
}

/** Yield the bytes of an answer. Throws Refused if the transfer breaks. */
export async function* chunks(response, signal) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "broken", BROKEN);
  } finally {
    reader.releaseLock();
  }
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy answered with something else: the status says enough.
  }
  const message = typeof error.message === "string" && error.message ? error.message : `the service answered ${response.status} ${response.statusText}`;
  return new Refused(response.status, String(error.code ?? ""), message, response.headers.get("Retry-After"));
}

/** Return a random UUID. crypto.randomUUID is missing on pages that came by plain HTTP from another machine. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
