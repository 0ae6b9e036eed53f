"""Generates the tables of docs/chains.md and of the README from the table of chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chain import CLAIMED_COLUMNS, HEAD_TAGS, Chain
from trace_dagster.datasets.chains import chain_of, listed_chains
from trace_dagster.datasets.reach import Reach, reach

DATASETS = ("blocks", "transactions", "logs", "geth_calls")
"""The datasets that the tables show."""

_HEADINGS = tuple(f"`{name}`" for name in DATASETS)
_WELL_KNOWN = (1, 56, 8453, 10, 42161, 137, 43114, 100, 42220, 534352, 59144, 146, 999, 143, 4217, 324, 25)
"""The chains of the README's table, by id."""

_HEADERS = {
    "ethereum": "standard",
    "avalanche": "Avalanche",
    "aura": "AuRa before the merge, then standard",
    "celo": "Celo before Gingerbread, then standard",
    "scroll": "Scroll",
    "other": "not an RLP header",
}


def whole_table(chains: Iterable[Chain] | None = None) -> str:
    """Return one row per chain with its forms, its finality and the level of each dataset, in Markdown."""
    rows = [_row(chain) for chain in chains or listed_chains()]
    return _table(("chain", "id", "header", "types beyond 0 to 4", "final", *_HEADINGS), rows)


def short_table(chains: Iterable[Chain] | None = None) -> str:
    """Return one row per combination of levels with the names of its chains, in Markdown."""
    found: dict[tuple[str, ...], list[str]] = {}
    for chain in map(chain_of, _WELL_KNOWN) if chains is None else chains:
        found.setdefault(tuple(_levels(chain)), []).append(chain.name)
    return _table(("chains", *_HEADINGS), [(", ".join(names), *levels) for levels, names in found.items()])


def claimed_columns() -> str:
    """Return one row per form of a transaction with the columns that no chain commits to, in Markdown."""
    rows = [
        (form.replace("_", " "), ", ".join(f"`{name}`" for name in columns))
        for form, columns in sorted(CLAIMED_COLUMNS.items())
    ]
    return _table(("transactions", "columns that the node claims"), rows)


def head_labels(chains: Iterable[Chain] | None = None) -> str:
    """Return one row per set of words that chains have for their heads, and one for all other chains, in Markdown."""
    found: dict[tuple[str, ...], list[str]] = {}
    for chain in chains or listed_chains():
        found.setdefault(chain.head_labels, []).append(f"{chain.name} ({chain.chain_id})")
    found.pop(HEAD_TAGS, None)
    rows = [(", ".join(names), *labels) for labels, names in found.items()]
    return _table(("chains", *(f"tag `{tag}`" for tag in HEAD_TAGS)), [*rows, ("all others", *HEAD_TAGS)])


def open_forms(chains: Iterable[Chain] | None = None) -> str:
    """Return the notes, forks and open forms of chains; chains of which the same is said share a section."""
    found: dict[tuple[str, ...], list[str]] = {}
    for chain in chains or listed_chains():
        found.setdefault((*_forms(chain), *_below(chain)), []).append(f"{chain.name} ({chain.chain_id})")
    found.pop((), None)
    sections = ("\n".join([f"### {', '.join(names)}\n", *_items(lines)]) for lines, names in found.items())
    return "\n".join(sections)


def with_tables(text: str) -> str:
    """Return a document in which each of these parts replaces the text between its two comments."""
    for name, part in _PARTS.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin in text:
            head, _, rest = text.partition(begin)
            text = f"{head}{begin}\n{part()}{end}{rest.partition(end)[2]}"
    return text


def _row(chain: Chain) -> tuple[str, ...]:
    types = ", ".join(f"`{kind:#x}`" for kind in sorted(chain.types)) or "none"
    return chain.name, str(chain.chain_id), _HEADERS[chain.header], types, _finality(chain), *_levels(chain)


def _finality(chain: Chain) -> str:
    depth = f"{chain.finality_blocks:,} blocks"
    return f"tag, else {depth}" if chain.has_finalized_tag else depth


def _levels(chain: Chain) -> Iterator[str]:
    """Yield the level of each dataset. A star marks a level that not every block reaches."""
    for name in DATASETS:
        found = reach(chain, dataset(name))
        yield f"{found.level}{' *' if found.below else ''}"


def _items(lines: Iterable[str]) -> Iterator[str]:
    yield from (f"- {line}" for line in lines)
    yield ""


def _forms(chain: Chain) -> Iterator[str]:
    if chain.notes:
        yield chain.notes
    if chain.timestamp_unit != "seconds":
        yield f"headers count time in {chain.timestamp_unit}"
    if chain.types:
        yield "types: " + ", ".join(
            f"`{kind:#x}` {form.replace('_', ' ')}" for kind, form in sorted(chain.types.items())
        )
    if chain.forks:
        heights = sorted(chain.forks.items(), key=lambda fork: fork[1])
        yield "forks that change a form: " + ", ".join(f"{name} at {block:,}" for name, block in heights)


def _below(chain: Chain) -> Iterator[str]:
    """Yield what stays below, each sentence with the datasets that it holds for."""
    found: dict[str, list[str]] = {}
    for name in DATASETS:
        for sentence in _sentences(reach(chain, dataset(name))):
            found.setdefault(sentence, []).append(f"`{name}`")
    yield from (f"{', '.join(names)}: {sentence}" for sentence, names in found.items())


def _sentences(found: Reach) -> Iterator[str]:
    if found.is_open:
        yield f"{found.level} ({found.reason})"
    yield from map(str, found.below)
    yield from found.notes


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


_PARTS = {
    "chains": whole_table,
    "chains-short": short_table,
    "claimed-columns": claimed_columns,
    "head-labels": head_labels,
    "open-forms": open_forms,
}
"""The parts of pages, by the name in the comments around them."""
