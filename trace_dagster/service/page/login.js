// Begins a session with a login link, and ends it.
import { ask } from "./service.js";

/** Return the code in a login link; a text without `#` is the code itself. */
export const codeOf = (text) => text.trim().replace(/^[^#]*#/, "");

/** Send the code of a login link; the service sets the session's cookie. Throws Refused. */
export const logIn = (text) => ask("v1/login", { method: "POST", json: { code: codeOf(text) } });

/** End the session. */
export const logOut = () => ask("v1/logout", { method: "POST" });
