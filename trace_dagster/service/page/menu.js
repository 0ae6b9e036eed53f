// A button that opens a list of choices. The arrow keys move in it, Escape closes it.
import { make } from "./elements.js";

/** A menu in a host that has a button. `choices` are `{title, detail, choose}`. */
export class Menu {
  constructor(host, empty) {
    this.host = host;
    this.empty = empty;
    this.button = host.querySelector("button");
    this.panel = make("div", { class: "menu-panel", role: "menu", "aria-label": this.button.textContent.trim(), hidden: true });
    this.button.setAttribute("aria-haspopup", "menu");
    this.button.setAttribute("aria-expanded", "false");
    host.append(this.panel);
    this.button.addEventListener("click", () => this.#open(this.panel.hidden));
    host.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("pointerdown", (event) => host.contains(event.target) || this.#open(false));
    host.addEventListener("focusout", (event) => host.contains(event.relatedTarget) || event.relatedTarget === null || this.#open(false));
  }

  /** Show these choices from now on. */
  fill(choices) {
    const items = choices.map(({ title, detail, choose }) =>
      make(
        "button",
        { type: "button", role: "menuitem", tabindex: "-1", onclick: () => (this.#open(false), choose()) },
        make("span", {}, title),
        detail ? make("small", {}, detail) : null,
      ),
    );
    this.panel.replaceChildren(...(items.length ? items : [make("p", { class: "dim" }, this.empty)]));
  }

  #items() {
    return [...this.panel.querySelectorAll("button")];
  }

  #open(isOpen) {
    if (isOpen === !this.panel.hidden) return;
    this.panel.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.#items()[0]?.focus();
  }

  #key(event) {
    if (this.panel.hidden) {
      if (event.key !== "ArrowDown") return;
      this.#open(true);
    } else if (event.key === "Escape") {
      this.#open(false);
      this.button.focus();
    } else {
      const items = this.#items();
      const at = items.indexOf(document.activeElement);
      const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
      if (next === undefined || !items.length) return;
      items.at(next % items.length).focus();
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
