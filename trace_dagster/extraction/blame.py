"""Decides which endpoints lied. A form that this version does not know is nobody's lie.

An endpoint's answer that contradicts a proof is a lie if the proof is known to fit the chain:

- On a chain of the table the forms are known, so a contradiction is a lie at once.
- Elsewhere it is a lie if the same blocks pass at another endpoint, or at the same endpoint later. If they fail at
  every endpoint, nobody is recorded. If they do so in the same way and no block of the dataset has passed yet, the
  chain has another form, and the error says what to do.

A form that the proof itself does not know (UnknownForm) is a lie only if another answer passes in full, and never where
the table says that nodes of the chain leave something out. Missing answers, and rows that a quorum disagrees on, are
never lies.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain, Form
from trace_dagster.errors import NoQuorum, TraceError, UnknownForm, UnknownFormat, VerificationFailed
from trace_dagster.rpc.pools import Endpoint

LiarRecorder = Callable[[Endpoint, str], None]
"""Records that an endpoint gave rows which the chain contradicts, with the reason."""

WAY_OUT = "use verify: structural or a quorum of endpoints for this stream, or a version that knows the chain"


class Blame:
    """Collects which endpoints fail which pieces. Thread-safe; one object serves all ranges of a process."""

    def __init__(self, record: LiarRecorder) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._passed: set[tuple[int, str]] = set()
        """Chains and datasets of which a piece has passed: their forms are known to fit."""

    def of(self, chain: Chain, dataset: str, piece: BlockRange) -> PieceBlame:
        """Return what collects the failures of one piece."""
        return PieceBlame(self, chain, dataset, piece)

    def lied(self, endpoint: Endpoint, error: TraceError) -> None:
        """Record a lie."""
        self._record(endpoint, str(error))

    def note_passed(self, chain: Chain, dataset: str) -> None:
        """Note that a piece has passed in full."""
        with self._lock:
            self._passed.add((chain.chain_id, dataset))

    def has_passed(self, chain: Chain, dataset: str) -> bool:
        """Return whether a piece has passed in full."""
        with self._lock:
            return (chain.chain_id, dataset) in self._passed


@dataclass(slots=True)
class PieceBlame:
    """The failures of one piece, until it passes at an endpoint or has failed at all."""

    blame: Blame
    chain: Chain
    dataset: str
    piece: BlockRange
    failures: list[tuple[Endpoint, TraceError]] = field(default_factory=list)
    """Every failure of this piece."""
    open_charges: list[tuple[Endpoint, TraceError]] = field(default_factory=list)
    """Contradictions that are lies if the piece passes, here or while it was part of a larger piece."""

    def failed(self, endpoint: Endpoint, error: TraceError) -> TraceError:
        """Note a failure; return the error, with the endpoint's name if it is a contradiction."""
        if isinstance(error, VerificationFailed) and not isinstance(error, NoQuorum):
            error = VerificationFailed(error.message, **{**error.facts, "endpoint": endpoint.name})
            if self.chain.is_listed:
                self.blame.lied(endpoint, error)
            else:
                self.open_charges.append((endpoint, error))
        elif isinstance(error, UnknownForm) and not self._is_left_out_by_nodes(error):
            self.open_charges.append((endpoint, error))
        self.failures.append((endpoint, error))
        return error

    def _is_left_out_by_nodes(self, error: UnknownForm) -> bool:
        """Return whether the table knows honest nodes that show this form, although another node may know better."""
        row = self.chain.open_form(Form(error.part, error.kind), error.block)
        return row is not None and row.after_all

    def passed(self, *, is_lowered: bool = False) -> None:
        """Record those whose answers this one contradicts. The forms that lowered its level contradict nobody."""
        if not is_lowered:
            self.blame.note_passed(self.chain, self.dataset)
        for endpoint, error in self.open_charges:
            if not (is_lowered and isinstance(error, UnknownForm)):
                self.blame.lied(endpoint, error)
        self.open_charges.clear()

    def half(self, piece: BlockRange) -> PieceBlame:
        """Return what collects the failures of a part of this piece. Charges about its blocks stay open there."""
        moved = [charge for charge in self.open_charges if _is_in(charge[1], piece)]
        return PieceBlame(self.blame, self.chain, self.dataset, piece, open_charges=moved)

    def verdict(self, error: TraceError, endpoints: Iterable[Endpoint]) -> TraceError:
        """Return the error to raise after the piece has failed at every endpoint; ``error`` is the one that decides.

        A chain outside of the table of which nothing has passed yet, and whose block fails at all endpoints in the same
        way, has a form that this version does not know.
        """
        if not isinstance(error, VerificationFailed) or not self._is_form(endpoints):
            return error
        return UnknownFormat(
            f"blocks of {self.chain.name} fail at every endpoint in the same way, so the chain has a form that this"
            f" version does not know: {error.message}: {WAY_OUT}",
            **{key: value for key, value in error.facts.items() if key != "endpoint"},
        )

    def _is_form(self, endpoints: Iterable[Endpoint]) -> bool:
        if self.chain.is_listed or self.blame.has_passed(self.chain, self.dataset):
            return False
        ways = {(type(error), error.message) for _, error in self.failures}
        asked = {endpoint.name for endpoint, _ in self.failures}
        kinds = {kind for kind, _ in ways}
        return len(ways) == 1 and kinds == {VerificationFailed} and asked >= {each.name for each in endpoints}


def _is_in(error: TraceError, piece: BlockRange) -> bool:
    block = error.facts.get("block")
    return isinstance(block, int) and piece.start <= block < piece.end
