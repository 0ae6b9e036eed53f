"""Encodes blocks as a node's JSON-RPC answers."""

from __future__ import annotations

from typing import Any

from trace_dagster.devchain.blocks import DevBlock
from trace_dagster.devchain.constants import BASE_FEE_WEI, CHAIN_ID, GAS_LIMIT
from trace_dagster.devchain.crypto import (
    EMPTY_LIST_HASH,
    EMPTY_REQUESTS_HASH,
    EMPTY_TRIE_ROOT,
    contract_address,
)
from trace_dagster.devchain.transactions import DevLog, DevTransaction

Json = dict[str, Any]


def header_json(block: DevBlock) -> Json:
    """Return a block's header, as subscriptions to new heads send it."""
    return {
        "number": hex(block.number),
        "hash": _hex(block.hash),
        "parentHash": _hex(block.parent_hash),
        "sha3Uncles": _hex(EMPTY_LIST_HASH),
        "miner": _hex(block.miner),
        "stateRoot": _hex(block.state_root),
        "transactionsRoot": _hex(block.transactions_root),
        "receiptsRoot": _hex(block.receipts_root),
        "logsBloom": _hex(block.bloom),
        "difficulty": "0x0",
        "gasLimit": hex(GAS_LIMIT),
        "gasUsed": hex(block.gas_used),
        "timestamp": hex(block.timestamp),
        "extraData": _hex(block.extra_data),
        "mixHash": _hex(block.mix_hash),
        "nonce": "0x0000000000000000",
        "baseFeePerGas": hex(BASE_FEE_WEI),
        "withdrawalsRoot": _hex(EMPTY_TRIE_ROOT),
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": _hex(bytes(32)),
        "requestsHash": _hex(EMPTY_REQUESTS_HASH),
    }


def block_json(block: DevBlock, *, full: bool) -> Json:
    """Return the result of ``eth_getBlockByNumber``."""
    transactions: list[Any] = (
        [transaction_json(block, index) for index in range(len(block.transactions))]
        if full
        else [_hex(transaction.hash) for transaction in block.transactions]
    )
    return {
        **header_json(block),
        "totalDifficulty": "0x0",
        "withdrawals": [],
        "size": hex(block.size),
        "uncles": [],
        "transactions": transactions,
    }


def transaction_json(block: DevBlock, index: int) -> Json:
    """Return the result of ``eth_getTransactionByHash``, which is also an item of a full block."""
    transaction = block.transactions[index]
    v, r, s = transaction.signature
    found: Json = {
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": hex(index),
        "hash": _hex(transaction.hash),
        "type": hex(transaction.kind),
        "from": _hex(transaction.sender),
        "to": _hex(transaction.call.to) if transaction.call.to else None,
        "nonce": hex(transaction.nonce),
        "value": hex(transaction.call.value),
        "input": _hex(transaction.call.input),
        "gas": hex(transaction.gas_limit),
        "gasPrice": hex(transaction.gas_price),
        "chainId": hex(CHAIN_ID),
        "v": hex(v),
        "r": hex(r),
        "s": hex(s),
    }
    if transaction.kind:
        found["yParity"] = hex(v)
        found["accessList"] = [
            {"address": _hex(address), "storageKeys": [_hex(key) for key in keys]}
            for address, keys in transaction.access_list
        ]
    if transaction.kind in {2, 4}:
        found["maxFeePerGas"] = hex(transaction.fee_cap)
        found["maxPriorityFeePerGas"] = hex(transaction.tip)
    if transaction.kind == 4:
        found["authorizationList"] = [_authorization_json(entry) for entry in transaction.authorizations]
    return found


def receipts_json(block: DevBlock) -> list[Json]:
    """Return the result of ``eth_getBlockReceipts``."""
    found, cumulative, log_index = [], 0, 0
    for index, transaction in enumerate(block.transactions):
        cumulative += transaction.gas_used
        logs = [
            log_json(block, index, log_index + offset, transaction, log) for offset, log in enumerate(transaction.logs)
        ]
        log_index += len(logs)
        created = transaction.call.to is None
        found.append(
            {
                "blockHash": _hex(block.hash),
                "blockNumber": hex(block.number),
                "transactionHash": _hex(transaction.hash),
                "transactionIndex": hex(index),
                "type": hex(transaction.kind),
                "from": _hex(transaction.sender),
                "to": _hex(transaction.call.to) if transaction.call.to else None,
                "contractAddress": _hex(contract_address(transaction.sender, transaction.nonce)) if created else None,
                "status": "0x1" if transaction.call.success else "0x0",
                "gasUsed": hex(transaction.gas_used),
                "cumulativeGasUsed": hex(cumulative),
                "effectiveGasPrice": hex(transaction.gas_price),
                "logsBloom": _hex(block.receipt_blooms[index]),
                "logs": logs,
            }
        )
    return found


def log_json(block: DevBlock, index: int, log_index: int, transaction: DevTransaction, log: DevLog) -> Json:
    """Return an item of ``eth_getLogs``."""
    return {
        "address": _hex(log.address),
        "topics": [_hex(topic) for topic in log.topics],
        "data": _hex(log.data),
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "blockTimestamp": hex(block.timestamp),
        "transactionHash": _hex(transaction.hash),
        "transactionIndex": hex(index),
        "logIndex": hex(log_index),
        "removed": False,
    }


def traces_json(block: DevBlock) -> list[Json]:
    """Return the result of ``debug_traceBlockByNumber`` with ``callTracer``."""
    return [
        {"txHash": _hex(transaction.hash), "result": _root_frame(transaction)} for transaction in block.transactions
    ]


def _root_frame(transaction: DevTransaction) -> Json:
    call = transaction.call
    to = call.to if call.to is not None else contract_address(transaction.sender, transaction.nonce)
    frame: Json = {
        "type": "CREATE" if call.to is None else "CALL",
        "from": _hex(transaction.sender),
        "to": _hex(to),
        "value": hex(call.value),
        "gas": hex(transaction.gas_limit),
        "gasUsed": hex(transaction.gas_used),
        "input": _hex(call.input),
        "output": _hex(call.output),
    }
    if not call.success:
        frame["error"] = "execution reverted"
    if call.frames:
        frame["calls"] = [
            {
                "type": child.kind,
                "from": _hex(to),
                "to": _hex(child.to),
                "value": hex(child.value),
                "gas": hex(child.gas_used + 1_000),
                "gasUsed": hex(child.gas_used),
                "input": _hex(child.input),
                "output": "0x",
                **({"error": child.error} if child.error else {}),
            }
            for child in call.frames
        ]
    return frame


def _authorization_json(entry: list[Any]) -> Json:
    chain_id, address, nonce, parity, r, s = entry
    return {
        "chainId": hex(chain_id),
        "address": _hex(address.rjust(20, b"\x00")),
        "nonce": hex(nonce),
        "yParity": hex(parity),
        "r": hex(r),
        "s": hex(s),
    }


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
