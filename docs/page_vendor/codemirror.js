// The parts of CodeMirror that the page's editor uses; build.sh makes one file of them.
export { EditorState, Compartment } from "@codemirror/state";
export { EditorView, keymap, drawSelection, highlightActiveLine, lineNumbers, placeholder, tooltips } from "@codemirror/view";
export { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
export { bracketMatching, HighlightStyle, indentUnit, syntaxHighlighting, syntaxTree } from "@codemirror/language";
export { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, completionStatus, startCompletion, acceptCompletion } from "@codemirror/autocomplete";
export { highlightSelectionMatches } from "@codemirror/search";
export { PostgreSQL, SQLDialect } from "@codemirror/lang-sql";
export { tags } from "@lezer/highlight";
