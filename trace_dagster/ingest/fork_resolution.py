"""Two ranges that show different hashes where they meet: what the pool's nodes say decides which one goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trace_dagster.errors import ForkConflict, TraceError, Unavailable, VerificationFailed
from trace_dagster.extraction.extractor import Lied
from trace_dagster.registry.forks import Forks
from trace_dagster.rpc.client import call_all
from trace_dagster.rpc.pools import Endpoint, RpcPool
from trace_dagster.verify.commitments import prove, rpc_json


def settle(
    conflict: ForkConflict, pools: Sequence[RpcPool], used: Iterable[str], forks: Forks, lied: Lied
) -> TraceError:
    """Ask every endpoint of both sides' pools which block is the chain's, and act on it; returns what ends the attempt.

    All say the new one: the committed versions were reorganised away, they are invalidated and fetched again. All
    say the committed one: the endpoints ``used`` for the new rows lied. They differ: both sides are fetched again.
    One is silent: nothing is done, for it may be the one that knows.
    """
    shown = _shown(conflict.block, pools)
    if None in shown:
        return Unavailable(
            f"{conflict.message}, and not every endpoint answers which block is the chain's: tried again"
        )
    if shown == {conflict.found}:
        reason = f"reorganised: block {conflict.block} is 0x{conflict.found.hex()} now"
        count = forks.invalidate(conflict.versions, reason)
        return Unavailable(
            f"{conflict.message}: {count} committed ranges were invalidated and are fetched again, then this one",
            block=conflict.block,
        )
    if shown == {conflict.committed}:
        error = VerificationFailed(
            "these rows are of a fork: their block is not the chain's",
            block=conflict.block,
            expected=f"0x{conflict.committed.hex()}",
            got=f"0x{conflict.found.hex()}",
            endpoint=",".join(used),
        )
        names = set(used)
        for endpoint in _endpoints(pools):
            if endpoint.name in names:
                lied(endpoint, str(error))
        return error
    forks.compare_again(conflict.versions, f"another range shows another hash for block {conflict.block}")
    return Unavailable(f"{conflict.message}, and the pool's endpoints do not agree: both are fetched again")


def _shown(block: int, pools: Sequence[RpcPool]) -> set[bytes | None]:
    """The proven hashes the endpoints show for a block; None stands for one that shows none."""
    found: set[bytes | None] = set()
    for endpoint in _endpoints(pools) if block >= 0 else ():
        try:
            (answer,) = call_all(endpoint, [("eth_getBlockByNumber", [hex(block), False])])
            found.add(prove.prove_header(rpc_json.decode_block(answer, full=False), block).hash)
        except TraceError:
            found.add(None)
    return found


def _endpoints(pools: Sequence[RpcPool]) -> list[Endpoint]:
    return list({endpoint.url: endpoint for pool in pools for endpoint in pool.endpoints}.values())
