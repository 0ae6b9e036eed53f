"""Runs all benchmarks and writes one table of ratios: bench/RESULTS.md.

    make bench            (or: .venv/bin/python -m bench.run [end_to_end ranges rivals limits ...] [--rounds 5])
    .venv/bin/python -m bench.run --quick

Medians of paired runs; the pairs alternate in order. The table is written after every round, so that a stop loses no
result; a part that fails has a line that says so, and the others continue. ``--quick`` uses short chains and one round:
it shows whether everything still works, not how long it takes, and only prints its table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench import control_plane, end_to_end, limits, memory, ranges, rivals
from bench.bare import blocks_in
from bench.product import DATASETS, Line, place
from bench.product import lines as nodes
from bench.table import Compared, Failed, machine, markdown

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- bench.run writes from here -->", "<!-- to here -->"
LATENCIES = (0.0, 0.05)
Rows = Sequence[Compared | Failed]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the measurements."""

    rounds: int
    seconds: float
    """Approximate seconds that bare Cryo takes when it is compared with the product at a node on this machine.

    At 50 ms it takes half as long. Beside rivals it takes a third of this on this machine and all of it at 50 ms, where
    the product takes a quarter of bare Cryo's time. An export of ethereum-etl takes a sixth.
    """
    ranges: int
    """Ranges of a backfill at a near node; a fifth of them far away."""
    memory_blocks: int
    memory_ranges: int
    gateway_blocks: int
    """Blocks that are extracted with the gateway and directly."""
    control_ranges: int
    tried: int = rivals.TRIED_BLOCKS
    """Blocks over which the rivals' settings are tried."""


QUICK = Sizes(
    rounds=1,
    seconds=0.5,
    ranges=100,
    memory_blocks=2000,
    memory_ranges=100,
    gateway_blocks=200,
    control_ranges=2000,
    tried=100,
)


def end_to_end_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure the product relative to bare Cryo."""
    spans = {latency: sizes.seconds / (2 if latency else 1) for latency in LATENCIES}
    blocks = _blocks(spans, DATASETS, end_to_end.CHUNK)
    rounds: list[end_to_end.Round] = []
    with place(max(blocks.values()), LATENCIES) as (environment, lines):
        for number in range(sizes.rounds):
            for line in lines:
                rounds += end_to_end.measure(environment, line, blocks=blocks[line.latency], number=number)
                yield end_to_end.compared(rounds)


def ranges_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure many tiny ranges in one backfill."""
    rounds: list[ranges.Ranges] = []
    with place(sizes.ranges, LATENCIES) as (environment, lines):
        for number, line in product(range(sizes.rounds), lines):
            count = sizes.ranges // 5 if line.latency else sizes.ranges
            rounds.append(ranges.measure(environment, line, ranges=count, number=number))
            yield ranges.compared(rounds)


def rivals_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure the product relative to ethereum-etl and a raw fetch."""
    spans = {latency: sizes.seconds / (1 if latency else 3) for latency in LATENCIES}
    blocks = _blocks(spans, rivals.DATASETS, rivals.CHUNK)
    rounds: list[rivals.Round] = []
    with place(max(blocks.values()), LATENCIES) as (environment, lines):
        planned: dict[Line, rivals.Setup] = {}
        for number in range(sizes.rounds):
            for line in lines:
                if line not in planned:
                    planned[line] = rivals.setup(line, blocks[line.latency], sizes.seconds / 6, sizes.tried)
                rounds.append(rivals.measure(environment, line, planned[line], number=number))
                yield rivals.compared(rounds)


def memory_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure memory by the size of ranges, and over many ranges."""
    rounds: list[memory.Memory] = []
    with nodes(sizes.memory_blocks, LATENCIES) as lines, memory.registry(lines[0].url) as variables:
        for number, line in product(range(sizes.rounds), lines):
            rounds.append(
                memory.measure(
                    variables,
                    line,
                    blocks=sizes.memory_blocks,
                    small=memory.SMALL,
                    ranges=sizes.memory_ranges,
                    size=memory.SIZE,
                    verify="full",
                    number=number,
                )
            )
            yield memory.compared(rounds)


def limits_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure rate limits and the effect of the gateway."""
    rounds: list[limits.Round] = []
    for number in range(sizes.rounds):
        rounds.append(
            limits.measure(
                seconds=max(5.0, sizes.seconds / 6),
                blocks=sizes.gateway_blocks,
                number=number,
            )
        )
        yield limits.compared(rounds)


def control_plane_part(sizes: Sizes) -> Iterator[Rows]:
    """Measure each step of the control plane after many committed ranges, and the UI's pages relative to stock
    Dagster.
    """
    yield control_plane.measure(1000, sizes.control_ranges, 5, 6 * sizes.rounds)


PARTS: dict[str, Callable[[Sizes], Iterator[Rows]]] = {
    "end_to_end": end_to_end_part,
    "ranges": ranges_part,
    "rivals": rivals_part,
    "limits": limits_part,
    "control_plane": control_plane_part,
    "memory": memory_part,
}
"""Each yields its rows after every round."""


def run(parts: Sequence[str], sizes: Sizes, write: Callable[[Rows], None]) -> Rows:
    """Measure the parts one after the other; call ``write`` with all rows after each round."""
    done: list[Compared | Failed] = []
    for name in parts:
        rows: Rows = []
        try:
            for rows in PARTS[name](sizes):
                write([*done, *rows])
        except (Exception, SystemExit) as error:
            rows = [*rows, Failed(name, f"{type(error).__name__}: {error}")]
        done += rows
        write(done)
    return done


def report(rows: Rows, sizes: Sizes) -> str:
    """Return the table, and the machine that it was measured on."""
    return f"{machine()}; medians of up to {sizes.rounds} paired runs.\n\n{markdown(rows)}"


def put(text: str, path: Path) -> None:
    """Replace the part that an earlier run wrote; the rest of the file stays."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _blocks(spans: Mapping[float, float], datasets: Sequence[str], chunk: int) -> dict[float, int]:
    """Return how many blocks bare Cryo extracts in each span, by latency; all in seconds."""
    return {latency: blocks_in(seconds, latency, chunk, datasets) for latency, seconds in spans.items()}


def main() -> None:
    """Measure, write, print; exit with 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all of them unless given")
    parser.add_argument("--quick", action="store_true", help="some minutes; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=120, help="approximate seconds that bare Cryo takes at a node on this machine"
    )
    parser.add_argument("--ranges", type=int, default=10_000, help="ranges of the one backfill")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}")
    long = Sizes(
        options.rounds,
        options.seconds,
        options.ranges,
        memory_blocks=50_000,
        memory_ranges=2000,
        gateway_blocks=4000,
        control_ranges=100_000,
    )
    sizes = QUICK if options.quick else long

    def write(rows: Rows) -> None:
        if not options.quick:
            put(report(rows, sizes), RESULTS)

    rows = run(options.parts or list(PARTS), sizes, write)
    print(report(rows, sizes))
    sys.exit(any(isinstance(row, Failed) for row in rows))


if __name__ == "__main__":
    main()
