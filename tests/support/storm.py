"""A storm of reorganisations, while the chain is followed, committed and queried.

Every answer is compared with what the node showed: the answer's head must have been canonical shortly before the
question, and the rows must be those of this head's ancestry, block for block.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.support import lake_truth
from tests.support.growing import GrowingChain
from tests.support.tip import EXPECTED, Tip
from trace_dagster.blocks import BlockRange
from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import TraceError
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.query.relations import Lake
from trace_dagster.query.session import QuerySession
from trace_dagster.registry.conditions import HIGHEST, Conditions, Reads, between
from trace_dagster.registry.snapshot_header import RelationInSnapshot, SnapshotHeader
from trace_dagster.store.access import S3Access

CANONICAL_SECONDS = 2.0
"""How long before a question the answer's head must have been canonical at the latest, on a quiet machine."""

RECENT_BLOCKS = 150
"""Blocks below the head that most questions are about: more than the deepest reorganisation has."""

_QUEUED = (
    "select d.dataset_key, lower(t.block_range) as first, upper(t.block_range) as ends from trace.tasks t"
    " join trace.datasets d using (dataset_uuid) where t.state = 'queued' order by 2"
)


class Fork(NamedTuple):
    """One reorganisation of a storm."""

    pause_seconds: float
    """Since the one before."""
    depth: int
    blocks: int


def random_forks(seed: int, count: int, mean_seconds: float, deepest: int = 64) -> list[Fork]:
    """Return reorganisations at random times, most of them short; some follow within the repair of the one before, and
    some leave a lower head.
    """
    rng = Random(f"storm/{seed}")
    forks = []
    for _ in range(count):
        depth = min(deepest, max(1, round(deepest ** rng.random())))
        pause = rng.choice((0.02, 0.1, rng.uniform(0.2, 2 * mean_seconds), rng.uniform(0.5, 3 * mean_seconds)))
        forks.append(Fork(pause, depth, max(1, depth + rng.choice((-1, 0, 0, 0, 1, 2)))))
    return forks


@dataclass
class Storm:
    """One chain, its followers, and everything that was wrong in an answer."""

    chain: GrowingChain
    blocks: Mapping[bytes, DevBlock]
    """Every block of every branch, by hash."""
    tips: Sequence[Tip]
    access: S3Access
    canonical_seconds: float = CANONICAL_SECONDS
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    behind: list[int] = field(default_factory=list)
    """Of each answer, how many blocks its head was behind the node's."""

    def ask(self, tip: Tip, first: int | None = None) -> None:
        """Ask one question about the newest blocks, and compare the answer."""
        if first is None:
            first = max(0, self.chain.head.number - RECENT_BLOCKS)
        asked_at, node_head = time.monotonic(), self.chain.head.number
        header, rows = self.answer(tip, first)
        heads = {head.tag: head for head in header.heads.get(CHAIN_ID, ())}
        if "latest" not in heads:
            return
        head = bytes(heads["latest"].hash or b"")
        self.answers += 1
        self.behind.append(max(0, node_head - heads["latest"].number))
        name = f"{'+'.join(tip.keys)}: head {heads['latest'].number} 0x{head.hex()[:8]}"
        if not self.chain.was_canonical(head, asked_at - self.canonical_seconds):
            self.wrong.append(f"{name} was not canonical")
        ancestry = self.chain.ancestry(head)
        expected = {
            (each.dataset_key, number, ancestry[number]): EXPECTED[each.dataset_key](self.blocks[ancestry[number]])
            for each in header.relations
            for number in covered(each, first)
        }
        for place in sorted(expected.keys() | rows.keys()):
            if rows.get(place, 0) != expected.get(place, 0):
                key, number, found = place
                self.wrong.append(
                    f"{name}: {key} of block {number} 0x{found.hex()[:8]}:"
                    f" {rows.get(place, 0)} of {expected.get(place, 0)} rows"
                )

    def summary(self) -> str:
        """Return the number of answers, and how far their heads were behind the node's."""
        behind = sorted(self.behind)
        shown = ", ".join(f"p{part} {behind[len(behind) * part // 100]}" for part in (50, 95, 99)) if behind else "none"
        return f"{self.answers} answers, {len(self.wrong)} wrong, blocks behind the node: {shown}"

    def answer(self, tip: Tip, first: int) -> tuple[SnapshotHeader, Mapping[tuple[str, int, bytes], int]]:
        """Return the header, and the number of rows by dataset, block and block hash, of one snapshot."""
        with self._session(tip, first) as (session, header):
            questions = [
                f"select '{key}' as k, block_number as n, block_hash as h, count(*) as rows from {key}"
                f" where block_number >= {first} group by all"
                for key in tip.keys
            ]
            table = session.table(" union all ".join(questions), {})  # one statement: one answer
        return header, {(row["k"], row["n"], row["h"]): row["rows"] for row in table.to_pylist()}

    @contextmanager
    def _session(self, tip: Tip, first: int) -> Iterator[tuple[QuerySession, SnapshotHeader]]:
        catalog = tip.runtime.catalog
        lake = Lake(catalog.datasets(), self.access)
        reads = {key: Reads((Conditions(blocks=between(first, HIGHEST)),)) for key in tip.keys}
        opened = catalog.open(lake.reads(reads))
        with QuerySession.over(lake.relations(tip.keys, opened), self.access) as session:
            yield session, opened.header

    def differences(self, tip: Tip, first: int, chain: Sequence[DevBlock]) -> dict[str, str]:
        """Return how all rows, hot and cold, differ from the chain's blocks from ``first`` on; empty if they do not."""
        wrong = {}
        with self._session(tip, first) as (session, _):
            for key in tip.keys:
                columns = lake_truth.COLUMNS[key]
                table = session.table(f"select {', '.join(columns)} from {key}", {})
                found = Counter(zip(*(table[column].to_pylist() for column in columns), strict=True))
                expected = Counter(row for block in chain[first:] for row in lake_truth.EXPECTED[key](block))
                if found != expected:
                    wrong[key] = f"{(expected - found).total()} missing, {(found - expected).total()} too many"
        return wrong


def covered(relation: RelationInSnapshot, first: int) -> Iterator[int]:
    """Yield the blocks from ``first`` on that a snapshot has of a relation."""
    if relation.first_block is None or relation.last_block is None:
        return
    for number in range(max(first, relation.first_block), relation.last_block + 1):
        if not any(number in gap for gap in relation.gaps):
            yield number


def commit_cold(tip: Tip) -> int:
    """Do what the daemon and runs do: observe heads, plan, and commit what is queued. Return how many ranges."""
    runtime = tip.runtime
    runtime.heads.observe(runtime.jobs.streams())
    runtime.planner.plan()
    streams = {stream.dataset_key: stream for stream in runtime.jobs.streams()}
    with runtime.database.connection() as connection:
        queued = connection.execute(_QUEUED).fetchall()
    committed = 0
    for row in queued:
        try:
            block_range = BlockRange(row["first"], row["ends"])
            work = runtime.ingester.claim(
                streams[row["dataset_key"]], block_range, "storm", wait_seconds=0, manual=False
            )
            if isinstance(work, ClaimedRange):
                runtime.ingester.commit(runtime.ingester.start(work))
                committed += 1
        except TraceError:
            continue  # the chain forked under it: it is retried
    return committed


@contextmanager
def repeating(work: Iterable[Callable[[], object]], every_seconds: float) -> Iterator[Counter[str]]:
    """Call each function in turn, one per ``every_seconds``, in a thread. Yield the number of errors by text."""
    functions, stop, errors = list(work), threading.Event(), Counter[str]()

    def run() -> None:
        place, due = 0, time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + every_seconds, time.monotonic())
            try:
                functions[place % len(functions)]()
            except TraceError as error:
                errors[str(error)] += 1
            except Exception as error:
                errors[repr(error)] += 1
            place += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join(60)


def run_forks(chain: GrowingChain, forks: Iterable[Fork]) -> int:
    """Let the chain fork as planned; return how many forks that were."""
    done = 0
    for fork in forks:
        time.sleep(fork.pause_seconds)
        chain.reorg(min(fork.depth, chain.head.number - 1), fork.blocks)
        done += 1
    return done
