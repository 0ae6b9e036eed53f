"""The product relative to ethereum-etl, and to fetching the same answers and dropping them.

    .venv/bin/python -m bench.rivals [--blocks 20000] [--etl-seconds 20] [--rounds 5] [--latency 0 0.05]

The product extracts blocks, transactions (with their receipts' fields) and logs to S3, with structural checks.
ethereum-etl writes blocks, transactions, receipts and logs to local CSV files, with its defaults and with the best
setting found; it requests each receipt by its transaction's hash, and hashes repeat: see :mod:`bench.node`. The raw
fetch requests each full block and its receipts, which is all of the data one time. Because the ways differ much in
speed, they get different numbers of blocks, so that each takes long enough; the comparison is time per thousand blocks,
for the product from its first claim to its last commit.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from bench import etl, raw
from bench.product import Line, Synced, place, sync
from bench.table import Compared, Failed, cpu_note, grouped, in_turn, machine, markdown, middle

DATASETS = ("blocks", "transactions", "logs")
CHUNK = 5000
"""As in :mod:`bench.end_to_end`."""
CONNECTIONS = (1, 2, 4, 16, 64, 256)
TRIED_BLOCKS = 1000
"""Blocks over which a setting is tried."""

_UNIT = "s / 1,000 blocks"


@dataclass(frozen=True, slots=True)
class Setup:
    """The number of blocks and the settings of each way."""

    blocks: int
    """Blocks of the product and of the raw fetch."""
    etl_blocks: int
    etl_settings: tuple[etl.Setting, ...]
    connections: int
    missing: str = ""
    """The reason why ethereum-etl is left out, or empty."""


@dataclass(frozen=True, slots=True)
class Round:
    """Every way one time, at one node."""

    line: Line
    setup: Setup
    product: Synced
    exported: tuple[etl.Exported, ...]
    """By setting."""
    fetched: raw.Fetched


def setup(line: Line, blocks: int, seconds: float, tried: int = TRIED_BLOCKS) -> Setup:
    """Find the best settings over ``tried`` blocks; ethereum-etl exports what takes ``seconds``, at most ``blocks``."""
    tried = min(blocks, tried)
    connections = min(CONNECTIONS, key=lambda each: raw.fetch(line.url, tried, each).seconds)
    try:
        etl.install()
    except RuntimeError as error:
        return Setup(blocks, 0, (), connections, str(error))
    taken = {setting: etl.export(line.url, tried, setting).seconds for setting in etl.CANDIDATES}
    best = min(taken, key=taken.__getitem__)
    etl_blocks = min(blocks, max(tried, round(seconds * tried / taken[best])))
    return Setup(blocks, etl_blocks, tuple(dict.fromkeys((etl.DEFAULT, best))), connections)


def measure(
    environment: Mapping[str, str], line: Line, planned: Setup, *, number: int = 0, chunk: int = CHUNK
) -> Round:
    """Run round ``number`` at one node."""
    name = f"rivals_{line.pool}_{number}"
    ours, (exported, fetched) = in_turn(
        number,
        lambda: sync(
            name,
            environment,
            blocks=planned.blocks,
            chunk=chunk,
            verify="structural",
            datasets=DATASETS,
            pool=line.pool,
        ),
        lambda: (
            tuple(etl.export(line.url, planned.etl_blocks, setting) for setting in planned.etl_settings),
            raw.fetch(line.url, planned.blocks, planned.connections),
        ),
    )
    return Round(line, planned, ours, exported, fetched)


def compared(rounds: Sequence[Round]) -> list[Compared | Failed]:
    """Return for each line: time per thousand blocks relative to each of the others."""
    return [row for mine in grouped(rounds, lambda each: each.line) for row in _at_one_node(mine)]


def _at_one_node(mine: Sequence[Round]) -> list[Compared | Failed]:
    shown = middle(mine, lambda each: each.product.working)
    planned = shown.setup
    what = f"blocks, transactions, receipts, logs, {shown.line.name}"
    rows: list[Compared | Failed] = []
    for index, setting in enumerate(planned.etl_settings):
        exported = [each.exported[index] for each in mine]
        pairs = _paired(mine, [each.seconds / planned.etl_blocks for each in exported])
        name = f"beside ethereum-etl {etl.VERSION}, batches of {setting.batch}, {setting.workers} workers"
        far = f"ours {planned.blocks:,} blocks, its {planned.etl_blocks:,}"
        note = f"{far}; its CPU s {shown.exported[index].cpu_seconds:.1f}"
        rows.append(Compared(f"{what}: {name}", _UNIT, pairs, note))
    if planned.missing:
        rows.append(Failed(f"{what}: beside ethereum-etl", planned.missing))
    pairs = _paired(mine, [each.fetched.seconds / planned.blocks for each in mine])
    asked = f"{shown.fetched.bytes / 1e6:,.0f} MB in {planned.connections} connections"
    note = f"{asked}; its CPU s {shown.fetched.cpu_seconds:.1f}; ours {cpu_note(shown.product.cpu)}"
    return [*rows, Compared(f"{what}: beside a raw fetch that decodes nothing", _UNIT, pairs, note)]


def _paired(rounds: Sequence[Round], theirs: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return times of ours and theirs per thousand blocks; ``theirs`` is seconds per block, by round."""
    ours = [each.product.working / each.setup.blocks for each in rounds]
    return tuple((one * 1000, other * 1000) for one, other in zip(ours, theirs, strict=True))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--etl-seconds", type=float, default=20, help="about how long one export takes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds added to each request")
    options = parser.parse_args()
    rounds: list[Round] = []
    with place(options.blocks, options.latency) as (environment, lines):
        planned = {line: setup(line, options.blocks, options.etl_seconds) for line in lines}
        for number, line in product(range(options.rounds), lines):
            rounds.append(measure(environment, line, planned[line], number=number))
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
