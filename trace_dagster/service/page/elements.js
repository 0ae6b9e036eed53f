// Makes elements. Text goes in as text nodes only: nothing here reads HTML from a string.

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Return a new element with attributes and children. An attribute that is null or false is left out; `on...` is a
 * listener, `class` and `aria-...` are attributes. A child is a node or a text.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an option of a select. */
export const option = (value, text, rest = {}) => make("option", { value, ...rest }, text);

/** Copy a text. The clipboard API is missing on pages that came by plain HTTP from another machine. */
export async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // The browser did not allow it: take the old way.
    }
  }
  const area = make("textarea", { class: "offscreen", readonly: true });
  area.value = text;
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  before?.focus();
}
