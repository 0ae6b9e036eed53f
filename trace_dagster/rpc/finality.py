"""Up to which block a chain is final: by its nodes' block tag, by the job's setting, or by the chain's depth.

This is the only place that asks for the block tags ``finalized`` and ``safe``.
"""

from __future__ import annotations

from dataclasses import dataclass

from trace_dagster.datasets.chain import Chain
from trace_dagster.errors import EndpointLacks, InvalidInput, NoAnswer, TraceError, Unavailable
from trace_dagster.rpc.client import block_number, tagged_number_of
from trace_dagster.rpc.pools import RpcPool

SETTING = "finality_blocks"
"""The key of a chain_sync file that replaces the tag and the chain's depth."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The head of a chain as a pool shows it."""

    latest: int
    finalized: int
    """The last block that counts as final, at most ``latest``."""
    rule: str
    """The rule that gave ``finalized``, in words."""


def chain_head(pool: RpcPool, chain: Chain, finality_blocks: int | None = None, latest: int | None = None) -> ChainHead:
    """Return the head of a pool's chain. ``finality_blocks`` is the job's setting; if it is set, it decides. A caller
    that knows the latest block gives it, and it is not asked for.

    Otherwise the tag decides if an endpoint knows it, and the chain's depth if no endpoint does. An endpoint that fails
    for another reason may know the tag, so then no depth is used: the call raises that endpoint's error.
    """
    latest = block_number(pool) if latest is None else latest
    if finality_blocks is not None:
        return _below(latest, finality_blocks, f"the file sets {SETTING}: {finality_blocks}")
    if not chain.has_finalized_tag:
        return _below(latest, chain.finality_blocks, f"{_depth(chain)}, because its nodes know no block tag finalized")
    finalized = _tagged(pool, "finalized")
    if finalized is None:
        known_by = "no endpoint knows the block tag finalized"
        return _below(latest, chain.finality_blocks, f"{_depth(chain)}, because {known_by}")
    return ChainHead(latest, min(finalized, latest), "by the block tag finalized")


def safe_block(pool: RpcPool, chain: Chain) -> int | None:
    """Return the block that the chain's nodes call ``safe``, or None if they do not know that tag.

    Raises the error of an endpoint that did not say whether it knows the tag.
    """
    return _tagged(pool, "safe") if chain.has_finalized_tag else None


def finality_note(pool: RpcPool, head: ChainHead) -> str:
    """Return one line that says up to which block the chain is final, and by which rule."""
    return f"rpc pool {pool.name} is at block {head.latest}, final up to block {head.finalized}: {head.rule}"


def _below(latest: int, blocks: int, rule: str) -> ChainHead:
    return ChainHead(latest, max(0, latest - blocks), rule)


def _depth(chain: Chain) -> str:
    return f"{chain.finality_blocks} blocks below the latest one ({SETTING} of {chain.name})"


def _tagged(pool: RpcPool, tag: str) -> int | None:
    """Return the block of the first endpoint that knows the tag, or None if none of them knows it."""
    failed: TraceError | None = None
    lacking: list[str] = []
    for endpoint in pool.endpoints:
        try:
            found = tagged_number_of(endpoint, tag)
        except TraceError as error:
            failed = error
            continue
        if found is not None:
            return found
        lacking.append(endpoint.name)
    if failed is None:
        return None
    raise _named(failed, lacking, tag)


def _named(failed: TraceError, lacking: list[str], tag: str) -> TraceError:
    """Return the error of an endpoint that did not say whether it knows the tag, with the tag and the setting."""
    others = f" (rpc endpoint {', '.join(lacking)} does not know it)" if lacking else ""
    kind = next((each for each in (NoAnswer, InvalidInput, EndpointLacks) if isinstance(failed, each)), Unavailable)
    return kind(
        f"{failed.message}; asked for the block tag {tag}{others}: {SETTING} in the file replaces it",
        **failed.facts,
    )
