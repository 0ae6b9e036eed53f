"""Extracts one range through a node that answers incorrectly, and compares the rows with the correct ones.

A cell is ``committed`` if the extractor yields rows, because those are committed, else ``refused``. Rows that differ
from the honest node's are ``false``, unless they differ only in values that the proof lists as not proven.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.faults import FAULTS
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.engine.base import Engine, ExtractRequest
from trace_dagster.errors import TraceError, VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.source import EvidenceSource
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import Piece, RangeRequest
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.verify.check import merge

DATASETS = ("blocks", "transactions", "logs", "geth_calls", "erc20_transfers")
"""Without geth_balance_diffs, because the devchain has no prestateTracer."""

START = 20
CHAIN_BLOCKS = 90
TIMEOUT_SECONDS = 20
STALL_SECONDS = {"embedded": 1.0, "binary": 2.0, "patient": 5.0}
"""Seconds after which an engine gives up a stalled call; the proxy stalls longer."""

_DEVCHAIN = [sys.executable, "-m", "trace_dagster.devchain", "--port", "0"]
_ROOT_OPEN = {"from_address", "output"}
"""Columns of the root frames of geth_calls that no commitment covers, in addition to gas and the error's text."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One range and one kind of incorrect answer."""

    fault: str
    dataset: str
    rate: float = 1.0
    engine: str = "embedded"
    blocks: int = 8
    wide: bool = False
    """True for every column of the engine, not only those that a stream stores by default."""
    methods: tuple[str, ...] | None = None
    start: int = field(default=START, repr=False)

    @property
    def seed(self) -> int:
        """The seed, so that a cell always gets the same incorrect answers."""
        return zlib.crc32(repr(self).encode())


@dataclass(slots=True)
class Outcome:
    """The result of a cell."""

    cell: Cell
    injected: int = 0
    calls: int = 0
    lies: Counter[str] = field(default_factory=Counter)
    """Recorded incorrect answers by endpoint."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed calls and requests without an answer, by class."""
    refused: str | None = None
    false: str | None = None
    """The difference of committed rows from the correct ones in values that are listed as proven."""
    unproven: bool = False
    """True if committed rows differ in values that are not listed as proven."""
    lowered: int = 0
    """Number of committed blocks below the level that the chain allows."""

    @property
    def detected(self) -> int:
        """Number of recorded incorrect answers and of errors."""
        return self.lies.total() + self.errors.total()


class Watched:
    """An engine whose calls and failures are counted."""

    def __init__(self, engine: Engine, outcome: Outcome) -> None:
        self.name, self.version = engine.name, engine.version
        self._engine = engine
        self._outcome = outcome
        self._lock = threading.Lock()

    def made_up_times(self, piece: BlockRange) -> list[int] | None:
        return self._engine.made_up_times(piece)

    def extract(self, request: ExtractRequest) -> pa.Table:
        """Return the engine's table."""
        with self._lock:
            self._outcome.calls += 1
        with _counting(self._outcome):
            return self._engine.extract(request)

    def close(self) -> None:
        """Do nothing: the owner of the engine closes it."""


class WatchedCollector(EvidenceCollector):
    """An evidence collector that counts failed fetches and records incorrect evidence."""

    def __init__(self, name: str, outcome: Outcome, chain_id: int) -> None:
        super().__init__(name, chain_id, None)
        self._outcome = outcome

    def node(self, endpoint, **options):
        """Return the endpoint as a source whose errors are counted."""
        return WatchedSource(super().node(endpoint, **options), self._outcome)


class WatchedSource:
    """A source of evidence whose errors are counted."""

    def __init__(self, source: EvidenceSource, outcome: Outcome) -> None:
        self._source = source
        self._outcome = outcome

    def parts(self, *args):
        """Return the source's parts."""
        with _counting(self._outcome):
            return self._source.parts(*args)


@contextmanager
def _counting(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except VerificationFailed:
        raise
    except TraceError as error:
        outcome.errors[type(error).__name__] += 1
        raise


@contextmanager
def honest_node(blocks: int = CHAIN_BLOCKS) -> Iterator[str]:
    """Serve a devchain in a separate process; yield its URL."""
    process = subprocess.Popen([*_DEVCHAIN, "--blocks", str(blocks)], stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline()
        yield f"http://127.0.0.1:{ready.strip().rpartition('=')[2]}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Lab:
    """The honest node, the engines and the correct rows. Thread-safe."""

    def __init__(
        self,
        node: str,
        engine_of: Callable[[Cell], Engine],
        honest: Engine,
        blocks: int = CHAIN_BLOCKS,
        *,
        chain_id: int = CHAIN_ID,
        truth: Callable[[str], pa.Table] | None = None,
    ) -> None:
        """``truth`` returns the correct rows of a dataset, by default what ``honest`` extracts from the node."""
        self._node = node
        self._chain_id = chain_id
        self._truth_of = truth or self._extracted
        self._engine_of = engine_of
        self._honest = honest
        self._blocks = blocks
        self._truths: dict[str, pa.Table] = {}
        self._lock = threading.Lock()

    def run(self, cell: Cell, places: str = "L", quorum: int = 1) -> Outcome:
        """Extract the range from a pool with the faulty node at each ``L`` and the honest node at each ``H``.

        Honest nodes are proxies without faults, because a pool contains each URL only one time.
        """
        outcome = Outcome(cell)
        with ExitStack() as open_ones:
            proxies = [open_ones.enter_context(self._proxy(cell, 0 if place == "H" else cell.rate)) for place in places]
            self._extract(outcome, RpcPool("pool", tuple(proxy.url for proxy in proxies), quorum))
            outcome.injected = sum(proxy.injected.total() for proxy in proxies)
        return outcome

    def _extract(self, outcome: Outcome, pool: RpcPool) -> None:
        cell = outcome.cell
        extractor = Extractor(
            Watched(self._engine_of(cell), outcome),
            record_liar=lambda endpoint, _: outcome.lies.update([endpoint.name]),
        )
        try:
            collector = WatchedCollector(cell.dataset, outcome, self._chain_id)
            found = list(extractor.start(_request(cell, pool, collector, self._chain_id)))
            merge([piece.proof for piece in found])
        except TraceError as error:
            outcome.refused = type(error).__name__
            return
        for piece in found:
            false, unproven = _judged(cell.dataset, piece, self._truth(cell.dataset))
            outcome.false = outcome.false or false
            outcome.unproven = outcome.unproven or unproven
            outcome.lowered += sum(lowered.blocks for lowered in piece.proof.lowered)

    def _truth(self, name: str) -> pa.Table:
        """Return every column of every block."""
        with self._lock:
            if name not in self._truths:
                self._truths[name] = self._truth_of(name)
            return self._truths[name]

    def _extracted(self, name: str) -> pa.Table:
        """Return the rows of the whole chain that the honest node gives."""
        whole = Cell("", name, start=0, blocks=self._blocks, wide=True)
        pool = RpcPool("honest", (self._node,))
        pieces = Extractor(self._honest).start(_request(whole, pool, None, self._chain_id))
        return pa.concat_tables(piece.table for piece in pieces)

    def _proxy(self, cell: Cell, rate: float):
        return chaos_rpc(
            self._node,
            faults=[cell.fault],
            rate=rate,
            seed=cell.seed,
            methods=cell.methods,
            stall_seconds=2 * STALL_SECONDS[cell.engine],
            delay_seconds=0.05,
        )


def _request(cell: Cell, pool: RpcPool, evidence: EvidenceCollector | None, chain_id: int) -> RangeRequest:
    """Return the request that an ingester makes."""
    known = dataset(cell.dataset)
    columns = known.storable_columns if cell.wide else known.stored_columns()
    return RangeRequest(
        dataset=known,
        block_range=BlockRange(cell.start, cell.start + cell.blocks),
        chain_id=chain_id,
        columns=columns,
        verify="full" if evidence else "structural",
        pool=pool,
        evidence=evidence,
        options={"timeout_seconds": TIMEOUT_SECONDS},
    )


def _judged(name: str, piece: Piece, truth: pa.Table) -> tuple[str | None, bool]:
    """Return (the difference in values that are listed as proven, whether other values differ).

    In blocks below the level that the chain allows, nothing is listed as proven.
    """
    span = piece.block_range
    truth = _inside(truth, span.start, span.end).select(piece.table.column_names).cast(piece.table.schema)
    table, lowered = piece.table, False
    for each in piece.proof.lowered:
        first, end = each.first_block, each.first_block + each.blocks
        lowered = lowered or not _inside(table, first, end).equals(_inside(truth, first, end))
        table, truth = _outside(table, first, end), _outside(truth, first, end)
    false, unproven = _judged_rows(name, piece, table, truth)
    return false, unproven or lowered


def _judged_rows(name: str, piece: Piece, table: pa.Table, truth: pa.Table) -> tuple[str | None, bool]:
    if name == "geth_calls":
        return _judged_calls(table, truth)
    if table.num_rows != truth.num_rows:
        return f"{table.num_rows} rows of {truth.num_rows} in {piece.block_range}", False
    differing = _differing(table, truth)
    proven = differing - set(piece.proof.unproven)
    return (f"{sorted(proven)} in {piece.block_range}" if proven else None), bool(differing)


def _inside(table: pa.Table, first: int, end: int) -> pa.Table:
    numbers = table["block_number"]
    return table.filter(pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, end)))


def _outside(table: pa.Table, first: int, end: int) -> pa.Table:
    numbers = table["block_number"]
    return table.filter(pc.or_(pc.less(numbers, first), pc.greater_equal(numbers, end)))


def _judged_calls(table: pa.Table, truth: pa.Table) -> tuple[str | None, bool]:
    """Compare call frames. Not proven are frames below the roots, and the roots' gas, output, sender and error text."""
    roots, true_roots = _roots(table), _roots(truth)
    if roots.num_rows != true_roots.num_rows:
        return f"{roots.num_rows} roots of {true_roots.num_rows}", False
    opened = {key for key in table.column_names if key in _ROOT_OPEN or key.startswith("gas_")}
    false = _differing(roots, true_roots) - opened
    if pc.is_null(roots["error"]).equals(pc.is_null(true_roots["error"])):
        false -= {"error"}
    places = ["block_number", "block_timestamp", "transaction_index", "transaction_hash", "chain_id"]
    strangers = _rows(table.select(places)) - _rows(truth.select(places))
    if strangers:
        false |= {"frames of no transaction"}
    return (str(sorted(false)) if false else None), not table.equals(truth)


def _roots(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["trace_address"], ""))


def _rows(table: pa.Table) -> set[tuple[object, ...]]:
    return set(zip(*[column.to_pylist() for column in table.columns], strict=True))


def _differing(table: pa.Table, truth: pa.Table) -> set[str]:
    return {name for name in table.column_names if not table[name].equals(truth[name])}


COUNTS = ("cells", "injected", "detected", "retried", "committed", "refused", "lowered", "false", "unproven")


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table of injected and detected faults. ``unproven`` cells are among the committed ones."""
    lines = [f"| fault | {' | '.join(COUNTS)} |", f"|---|{'--:|' * len(COUNTS)}"]
    for name in FAULTS:
        if told := [outcome for outcome in outcomes if outcome.cell.fault == name]:
            lines.append(_line(f"`{name}`", told))
    return "\n".join([*lines, _line("all", outcomes)])


def _line(title: str, outcomes: Sequence[Outcome]) -> str:
    counts = (
        len(outcomes),
        sum(outcome.injected for outcome in outcomes),
        sum(outcome.detected for outcome in outcomes),
        sum(outcome.calls - 1 for outcome in outcomes),
        sum(outcome.refused is None for outcome in outcomes),
        sum(outcome.refused is not None for outcome in outcomes),
        sum(outcome.lowered > 0 for outcome in outcomes),
        sum(outcome.false is not None for outcome in outcomes),
        sum(outcome.unproven for outcome in outcomes),
    )
    return f"| {title} | {' | '.join(f'{count:,}' for count in counts)} |"
