// The SQL editor. It stands in a shadow root: there CodeMirror adopts its style sheet, which the page's
// Content-Security-Policy allows; in the page itself it would write a style element.
import {
  EditorState, EditorView, HighlightStyle, PostgreSQL, SQLDialect, acceptCompletion, autocompletion, bracketMatching, closeBrackets,
  closeBracketsKeymap, completionKeymap, defaultKeymap, drawSelection, highlightSelectionMatches, history, historyKeymap,
  indentUnit, keymap, lineNumbers, placeholder, syntaxHighlighting, tags,
} from "./vendor/codemirror.js";

const EXTRA_KEYWORDS = " anti asof columns describe exclude glob map pivot positional qualify replace sample semi show struct summarize unpivot";
const EXTRA_TYPES = " bignum blob hugeint tinyint ubigint uhugeint uinteger usmallint utinyint";
const duckdb = SQLDialect.define({
  ...PostgreSQL.spec,
  keywords: PostgreSQL.spec.keywords + EXTRA_KEYWORDS,
  types: PostgreSQL.spec.types + EXTRA_TYPES,
  caseInsensitiveIdentifiers: true,
  specialVar: "$?",
});

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.bool, tags.null], color: "var(--sql-keyword)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--sql-text)" },
  { tag: tags.number, color: "var(--sql-number)" },
  { tag: [tags.typeName, tags.standard(tags.name)], color: "var(--sql-type)" },
  { tag: [tags.lineComment, tags.blockComment], color: "var(--dim)", fontStyle: "italic" },
  { tag: tags.special(tags.name), color: "var(--sql-number)" },
]);

// The letters before proposals; CodeMirror's own are symbols that not every machine has a font for.
const ICONS = { property: "c", class: "t", namespace: "s", variable: "v", function: "f", keyword: "k" };

const look = EditorView.theme({
  "&": { backgroundColor: "var(--surface)", color: "var(--ink)", fontSize: "13.5px", height: "100%" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6", overflow: "auto" },
  ".cm-content": { caretColor: "var(--accent)", padding: "10px 0" },
  ".cm-cursor": { borderLeftColor: "var(--accent)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--faint)", border: "none", paddingLeft: "6px" },
  ".cm-placeholder": { color: "var(--dim)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--selection)" },
  ".cm-selectionMatch": { backgroundColor: "var(--match)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--match)", outline: "1px solid var(--accent)" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", border: "1px solid var(--line-strong)", borderRadius: "8px", overflow: "hidden", boxShadow: "var(--shadow)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "12.5px", maxHeight: "16em" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 10px 3px 6px", color: "var(--ink)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  ".cm-tooltip-autocomplete ul li[aria-selected] .cm-completionDetail": { color: "inherit" },
  ".cm-completionDetail": { color: "var(--dim)", fontStyle: "normal", marginLeft: "1.2em" },
  ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
  ".cm-completionIcon": { opacity: "0.8", width: "1.5em", fontSize: "85%", textAlign: "center", paddingRight: "0.4em" },
  ...Object.fromEntries(Object.entries(ICONS).map(([kind, letter]) => [`.cm-completionIcon-${kind}::after`, { content: `"${letter}"` }])),
});

/**
 * Replace the selection by what is typed. The browser's own way keeps the look of the replaced text in a style
 * attribute, which the page's policy refuses.
 */
function replaceSelection(event, view) {
  const { from, to, empty } = view.state.selection.main;
  if (event.inputType !== "insertText" || !event.data || empty || view.composing) return false;
  const insert = () => view.state.update(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
  const handlers = view.state.facet(EditorView.inputHandler); // such as the one that puts brackets around the selection
  if (!handlers.some((handle) => handle(view, from, to, event.data, insert))) view.dispatch(insert());
  event.preventDefault();
  return true;
}

/** The editor: its text, and where the cursor is. */
export class Editor {
  /** `run` is called for Ctrl+Enter, `changed` with each new text; `complete` is a CodeMirror completion source. */
  constructor(host, { text, run, changed, complete }) {
    const root = host.attachShadow({ mode: "open" });
    const runs = () => (run(), true);
    this.view = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: text,
        extensions: [
          keymap.of([
            { key: "Mod-Enter", run: runs },
            { key: "Ctrl-Enter", run: runs },
            { key: "Tab", run: acceptCompletion },
            ...closeBracketsKeymap, ...completionKeymap, ...historyKeymap, ...defaultKeymap,
          ]),
          lineNumbers(), history(), drawSelection(), bracketMatching(), closeBrackets(), highlightSelectionMatches(),
          indentUnit.of("  "),
          placeholder("select ..."),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": "SQL", "aria-multiline": "true", spellcheck: "false", autocapitalize: "off" }),
          EditorView.domEventHandlers({ beforeinput: replaceSelection }),
          EditorView.updateListener.of((update) => update.docChanged && changed(update.state.doc.toString())),
          duckdb.language,
          autocompletion({ override: [complete], icons: true, maxRenderedOptions: 60 }),
          syntaxHighlighting(colours),
          look,
        ],
      }),
    });
  }

  get text() {
    return this.view.state.doc.toString();
  }

  /** Replace the whole text. Ctrl+Z brings the former one back. */
  set text(text) {
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text }, selection: { anchor: text.length }, scrollIntoView: true });
  }

  /** Put a text where the cursor is, with a space before it if it would touch a word. */
  insert(text) {
    const { from, to } = this.view.state.selection.main;
    const before = this.view.state.sliceDoc(Math.max(0, from - 1), from);
    const inserted = (/[\w"]/.test(before) ? " " : "") + text;
    this.view.dispatch({ changes: { from, to, insert: inserted }, selection: { anchor: from + inserted.length }, userEvent: "input" });
    this.focus();
  }

  focus() {
    this.view.focus();
  }
}
