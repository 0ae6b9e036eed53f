"""What a change costs end to end: this checkout and another one, in turn, each relative to bare Cryo.

    .venv/bin/python -m bench.checkouts OTHER [--blocks 20000] [--rounds 5]

OTHER is a checkout of an earlier version with an installed environment. Each turn is one round of `bench.end_to_end` in
one of the two, with its own stack.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.table import Compared, in_turn, machine, markdown

_CASES = ("full", "structural")
_WHAT = "first claim to last commit"


def measure(this: Path, other: Path, *, blocks: int, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the ratios to bare Cryo by case, of this checkout and of the other one."""
    return in_turn(number, lambda: ratios(this, blocks), lambda: ratios(other, blocks))


def ratios(checkout: Path, blocks: int) -> dict[str, float]:
    """Run one round in a checkout; return the ratio to bare Cryo by case."""
    options = ["--blocks", str(blocks), "--rounds", "1", "--latency", "0", "--cases", *_CASES]
    done = subprocess.run(
        [str(checkout / ".venv/bin/python"), "-m", "bench.end_to_end", *options],
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cells = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if _WHAT in line]
    return {case: float(row[5]) for row in cells for case in _CASES if f"end to end, {case}," in row[1]}


def compared(rounds: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[Compared]:
    """Return one row per case: this checkout's ratios beside the other's."""
    return [
        Compared(
            f"end to end, {case}, 0 ms: relative to bare Cryo, beside the other checkout",
            "of bare Cryo",
            tuple((ours[case], theirs[case]) for ours, theirs in rounds),
        )
        for case in _CASES
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        rounds.append(measure(Path.cwd(), options.other.absolute(), blocks=options.blocks, number=number))
        print(rounds[-1], file=sys.stderr, flush=True)
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
