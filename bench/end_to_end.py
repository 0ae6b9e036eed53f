"""The cost of the product relative to bare Cryo: the same blocks of the same node, everything committed on S3.

    .venv/bin/python -m bench.end_to_end [--blocks 20000] [--rounds 5] [--latency 0 0.05] [--cases full structural]

Bare: `cryo.freeze` of four datasets, one after the other, to local disk in a fresh process, its import not counted.
Product: from apply to everything committed, through planner, daemon, run and proof, on one stack for all rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from bench.bare import Bare, freeze
from bench.product import DATASETS, Line, Synced, place, sync
from bench.table import Compared, cpu_note, grouped, machine, markdown, middle


class Case(NamedTuple):
    """One configuration of the product."""

    verify: str
    chunk: int
    """Blocks per range."""
    engine: str = "cryo"

    @property
    def name(self) -> str:
        """The name in a table."""
        return self.verify if self.engine == "cryo" else f"{self.verify}, engine: {self.engine}"


CHUNK = 5000
"""As in examples/monad_mainnet.yaml, for a whole chain."""
CASES = (Case("full", CHUNK, "native"), Case("full", CHUNK), Case("structural", CHUNK))
"""Bare Cryo runs between the first two, see :func:`measure`."""


@dataclass(frozen=True, slots=True)
class Round:
    """Both sides over the same blocks of one node."""

    line: Line
    case: Case
    blocks: int
    bare: Bare
    product: Synced


def measure(
    environment: Mapping[str, str], line: Line, *, blocks: int, number: int = 0, cases: Sequence[Case] = CASES
) -> list[Round]:
    """Run round ``number`` at one node: the first case, bare Cryo, the other cases; every second round in reverse
    order.

    A machine's speed drifts over minutes, so bare Cryo runs next to the case that the goals are about.
    """

    def ours(case: Case) -> Synced:
        name = f"end_{line.pool}_{case.engine}_{case.verify}_{case.chunk}_{number}"
        return sync(
            name,
            environment,
            blocks=blocks,
            chunk=case.chunk,
            verify=case.verify,
            pool=line.pool,
            engine=case.engine,
        )

    first, others = cases[:1], cases[1:]
    before, after = (first, others) if number % 2 == 0 else (others[::-1], first)
    synced = {case: ours(case) for case in before}
    bare = freeze(line.url, blocks, cases[0].chunk, DATASETS)
    synced |= {case: ours(case) for case in after}
    return [Round(line, case, blocks, bare, synced[case]) for case in cases]


def compared(rounds: Sequence[Round]) -> list[Compared]:
    """Return for each line and case: first claim to last commit, and apply to last commit, both relative to
    bare Cryo.
    """
    found = []
    for mine in grouped(rounds, lambda each: (each.line, each.case)):
        shown = middle(mine, lambda each: each.product.seconds)
        line, case = shown.line, shown.case
        what = f"end to end, {case.name}, {line.name}, {shown.blocks:,} blocks x {len(DATASETS)} in {case.chunk:,}s"
        starting = f"start-up {shown.product.starting:.1f} s of it"
        cpu = f"{cpu_note(shown.product.cpu)}; bare {shown.bare.cpu_seconds:.1f}"
        working = tuple((each.product.working, each.bare.seconds) for each in mine)
        whole = tuple((each.product.seconds, each.bare.seconds) for each in mine)
        spent = tuple((sum(each.product.cpu.values()), each.bare.cpu_seconds) for each in mine)
        found += [
            Compared(f"{what}: first claim to last commit", "s", working),
            Compared(f"{what}: apply to last commit", "s", whole, starting),
            Compared(f"{what}: CPU", "CPU s", spent, cpu),
        ]
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05], help="seconds added to each request")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="case", help=f"of {names}")
    options = parser.parse_args()
    cases = [case for case in CASES if case.name in options.cases]
    rounds: list[Round] = []
    with place(options.blocks, options.latency) as (environment, lines):
        for number, line in product(range(options.rounds), lines):
            rounds += measure(environment, line, blocks=options.blocks, number=number, cases=cases)
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
