"""Real blocks of many chains: the files of the folder in TRACE_REAL_CHAINS.

Each file holds ``chain_id``, ``block``, perhaps ``receipts`` and ``traces``, and in ``checked`` what an independent
program recomputed from them: hash, transactionsRoot, receiptsRoot.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.left_out import Need
from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import chain_of

REAL_CHAINS = Need("real blocks of many chains", "set TRACE_REAL_CHAINS to a folder of recorded blocks")

_SCROLL_TEST = 222222
"""A private network of Scroll's code, which the table of chains rightly lacks."""


@dataclass(frozen=True)
class RealBlock:
    """One file: the answers of a node, and what of them is known to be right."""

    name: str
    chain: Chain
    number: int
    block: dict[str, Any]
    receipts: list[dict[str, Any]] | None
    checked: dict[str, bool]


def folder() -> Path | None:
    """Return the folder in TRACE_REAL_CHAINS, or None."""
    found = os.environ.get("TRACE_REAL_CHAINS", "")
    return Path(found) if found else None


def names() -> list[str]:
    """Return the names of the files, or one that stands for all of them where there is no folder."""
    found = folder()
    return sorted(path.name for path in found.glob("*.json.gz")) if found is not None else ["none"]


@cache
def real_block(name: str) -> RealBlock:
    """Read one file."""
    found = folder()
    assert found is not None
    content = json.loads(gzip.decompress((found / name).read_bytes()))
    chain_id = int(content["chain_id"])
    chain = replace(chain_of(534352), chain_id=chain_id) if chain_id == _SCROLL_TEST else chain_of(chain_id)
    block, checked = content["block"], content["checked"]
    if not checked["hash"] and len(block["logsBloom"]) != 514:  # cut in the source; no other member depends on it
        block = {**block, "logsBloom": "0x" + "00" * 256}
    return RealBlock(name, chain, int(block["number"], 16), block, content.get("receipts"), checked)
