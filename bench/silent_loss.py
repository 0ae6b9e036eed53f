"""Why rows are verified: bare Cryo and the product with the same node, which answers a tenth of the requests
incorrectly.

    make silent-loss      (or: .venv/bin/python -m bench.silent_loss --blocks 300)

Prints a Markdown table and draws docs/images/silent_loss.svg. Bare: `cryo.collect` of each range, in another process,
with its rows as returned. Product: extraction and proof at level full, with that node as the only endpoint. A range is
silently wrong if it is reported as success and its rows are not the honest node's, in any order.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.product import DATASETS
from tests.support.lies import Cell, Lab, Outcome, honest_node
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.engine.embedded import EmbeddedCryo

FAULTS = {
    "empty_list": "no rows",
    "truncate_tail": "last rows missing",
    "duplicate_rows": "rows doubled",
    "reorder_rows": "rows in another order",
    "neighbour_rows": "another block's answer",
    "neighbour_rows_relabelled": "the same, relabelled",
    "stale_fork": "a fork's answer",
    "null_hashes": "logs without hashes",
    "flip_digit": "a quantity off by one",
    "flip_byte": "one byte changed",
}
RATE = 0.1
RANGE_BLOCKS = 10
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "silent_loss.svg"
SIDES = ("bare", "ours")
BARE = """
import os, sys
import cryo
rpc = sys.stdin.readline().strip()
folder, dataset, blocks, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for start in range(0, blocks, size):
    try:
        frame = cryo.collect(dataset, start_block=start, end_block=start + size, rpc=rpc, verbose=False, no_report=True)
    except BaseException:
        continue
    frame.write_parquet(f"{folder}/{start}.parquet")
os._exit(0)
"""

Counts = dict[tuple[str, str], Counter[str]]
"""By side and fault."""


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=300)
    blocks = parser.parse_args().blocks
    counts: Counts = {(side, fault): Counter() for side in SIDES for fault in FAULTS}
    engine = EmbeddedCryo()
    with honest_node(blocks + 1) as node, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as threads:
        lab = Lab(node, lambda _: engine, engine, blocks)
        for name in DATASETS:
            truth = collected(node, name, blocks, Path(folder))
            for fault in FAULTS:
                cells = [
                    Cell(fault, name, RATE, blocks=RANGE_BLOCKS, start=start)
                    for start in range(0, blocks, RANGE_BLOCKS)
                ]
                counts["ours", fault].update(threads.map(lambda cell: verdict(lab.run(cell)), cells))
                with chaos_rpc(node, faults=[fault], rate=RATE, seed=cells[0].seed) as liar:
                    found = collected(liar.url, name, blocks, Path(folder))
                counts["bare", fault].update(
                    "refused" if start not in found else "right" if found[start] == truth[start] else "wrong"
                    for start in truth
                )
            print(f"{name} done", file=sys.stderr, flush=True)
    engine.close()
    print(table(counts))
    PICTURE.write_text(picture(counts, blocks))


def collected(rpc: str, name: str, blocks: int, folder: Path) -> dict[int, pa.Table]:
    """Return the rows that bare Cryo returns as success, by first block; sorted, because their order does not count."""
    for file in folder.iterdir():
        file.unlink()
    subprocess.run(
        [sys.executable, "-c", BARE, str(folder), name, str(blocks), str(RANGE_BLOCKS)],
        input=rpc + "\n", text=True, capture_output=True, check=True,
    )  # fmt: skip
    return {int(file.stem): _sorted(pq.read_table(file)) for file in folder.iterdir()}


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in rows.column_names])


def verdict(outcome: Outcome) -> str:
    """Return the verdict; ``open``: rows differ only in values that the proof, and so the manifest, lists as
    not proven.
    """
    if outcome.refused:
        return "refused"
    return "wrong" if outcome.false else "open" if outcome.unproven else "right"


def table(counts: Counts) -> str:
    """Return a Markdown table of the ranges by verdict."""
    head = ["fault", "bare: silently wrong", "failed", "right"]
    head += ["Trace: silently wrong", "wrong where said unproven", "refused", "right"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    for fault in FAULTS:
        lines.append(_line(f"`{fault}`", counts["bare", fault], counts["ours", fault]))
    bare, ours = (sum((counts[side, fault] for fault in FAULTS), Counter()) for side in SIDES)
    return "\n".join([*lines, _line("all", bare, ours)])


def _line(title: str, bare: Counter[str], ours: Counter[str]) -> str:
    cells = [bare[kind] for kind in ("wrong", "refused", "right")]
    cells += [ours[kind] for kind in ("wrong", "open", "refused", "right")]
    return f"| {title} | {' | '.join(map(str, cells))} |"


LEFT, WIDTH, ROW, TOP = 190, 480, 40, 88
STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #57606a; font-size: 12px }
  .axis { stroke: #d0d7de }
  .bare { fill: #cf5b3c }
  .ours { fill: #2f7fb8 }
  .open { fill: #2f7fb8; fill-opacity: .3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .axis { stroke: #3d444d }
    .bare { fill: #e8795b } .ours { fill: #58a6dc } .open { fill: #58a6dc; fill-opacity: .35 }
  }
"""


def picture(counts: Counts, blocks: int) -> str:
    """Return an SVG with two bars per fault, readable on light and on dark pages."""
    ranges = blocks // RANGE_BLOCKS * len(DATASETS)
    height = TOP + ROW * len(FAULTS) + 34
    title = "Ranges reported as success with wrong rows"
    about = f"a node that lies in {RATE:.0%} of its answers; {ranges} ranges of {RANGE_BLOCKS} blocks for each lie"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" aria-label="{title}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="28">{title}</text>',
        f'<text class="quiet" x="16" y="48">{about}</text>',
        *_legend(),
        *_bars(counts, ranges),
        f'<line class="axis" x1="{LEFT}" y1="{TOP - 6}" x2="{LEFT}" y2="{height - 30}"/>',
        f'<text class="quiet" x="16" y="{height - 10}">{", ".join(DATASETS)}; one endpoint, no second opinion;'
        " bench/silent_loss.py</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> Iterator[str]:
    entries = (
        ("bare", "bare Cryo", 0),
        ("ours", "Trace", 92),
        ("open", "Trace, where the manifest says “unproven”", 158),
    )
    for name, text, x in entries:
        yield f'<rect class="{name}" x="{LEFT + x}" y="60" width="11" height="11" rx="2"/>'
        yield f'<text class="quiet" x="{LEFT + x + 16}" y="70">{text}</text>'


def _bars(counts: Counts, ranges: int) -> Iterator[str]:
    for row, (fault, text) in enumerate(FAULTS.items()):
        y = TOP + ROW * row
        bare, ours = counts["bare", fault]["wrong"], counts["ours", fault]
        yield f'<text x="{LEFT - 12}" y="{y + 20}" text-anchor="end">{text}</text>'
        yield from _bar("bare", y, 0, bare, ranges, str(bare))
        yield from _bar("ours", y + 15, 0, ours["wrong"], ranges, "" if ours["open"] else str(ours["wrong"]))
        if ours["open"]:
            told = f"{ours['wrong']}, and {ours['open']} “unproven”"
            yield from _bar("open", y + 15, ours["wrong"], ours["open"], ranges, told)


def _bar(name: str, y: int, before: int, count: int, ranges: int, text: str) -> Iterator[str]:
    x, wide = LEFT + _long(before, ranges), _long(count, ranges)
    if count:
        yield f'<rect class="{name}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="13"/>'
    if text:
        yield f'<text class="quiet" x="{x + wide + 6:.1f}" y="{y + 11}">{text}</text>'


def _long(count: int, ranges: int) -> float:
    return WIDTH * count / ranges


if __name__ == "__main__":
    main()
