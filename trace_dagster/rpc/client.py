"""A small JSON-RPC client for the questions we ask ourselves: which chain, how far."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.rpc.pools import RpcPool, variable_of

TIMEOUT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 32 * 1024 * 1024

Tag = Literal["latest", "safe", "finalized"]


def chain_id(pool: RpcPool) -> int:
    """The chain the pool's endpoints serve. Raises Unavailable, or InvalidInput for a refused key."""
    return _first_answer(pool, lambda url: _quantity(call(url, pool, "eth_chainId", [])))


def block_number(pool: RpcPool, tag: Tag = "latest") -> int:
    """The number of the block a tag names; ``latest`` where the node does not know ``finalized``."""

    def ask(url: str) -> int:
        if tag == "latest":
            return _quantity(call(url, pool, "eth_blockNumber", []))
        block = call(url, pool, "eth_getBlockByNumber", [tag, False])
        if not isinstance(block, dict):
            raise Unavailable(f"rpc pool {pool.name} knows no {tag} block yet")
        return _quantity(block.get("number"))

    return _first_answer(pool, ask)


def require_chain(pool: RpcPool, wanted: int) -> None:
    """Raises InvalidInput unless every endpoint that answers serves chain ``wanted``."""
    found = chain_id(pool)
    if found != wanted:
        raise InvalidInput(
            f"rpc pool {pool.name} serves chain {found}, the job wants chain {wanted}: correct chain_id in the"
            f" file, or {variable_of(pool.name)}"
        )


def call(url: str, pool: RpcPool, method: str, parameters: list[Any]) -> Any:
    """One request to one endpoint; the ``result`` of the answer, checked as hostile."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    status, data = _post(url, pool, body)
    if status in {401, 403}:
        raise InvalidInput(f"rpc pool {pool.name} refuses its key: check {variable_of(pool.name)}", http=status)
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise Unavailable(f"rpc pool {pool.name} answered with something that is not JSON", http=status) from None
    if not isinstance(answer, dict) or answer.get("id") != 1:
        raise Unavailable(f"rpc pool {pool.name} answered another request than {method}", http=status)
    error = answer.get("error")
    if error:
        code = error.get("code") if isinstance(error, dict) and type(error.get("code")) is int else None
        raise Unavailable(f"rpc pool {pool.name} answered {method} with an error", code=code)
    return answer.get("result")


def _post(url: str, pool: RpcPool, body: bytes) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection_type = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connection_type(str(parts.hostname), parts.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", _target(url), body, _headers(url))
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"rpc pool {pool.name} does not answer: check {variable_of(pool.name)} and the node",
            reason=type(error).__name__,
        ) from None
    finally:
        connection.close()


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(url: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "user-agent": "trace-dagster"}
    parts = urlsplit(url)
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return headers


def _first_answer(pool: RpcPool, ask: Callable[[str], int]) -> int:
    last: TraceError = Unavailable(f"rpc pool {pool.name} has no endpoint")
    for url in pool.urls:
        try:
            return ask(url)
        except (Unavailable, InvalidInput) as error:
            last = error
    raise last


def _quantity(value: object) -> int:
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 18:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    try:
        number = int(value, 16)
    except ValueError:
        number = -1
    if not 0 <= number < MAX_BLOCK:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    return number
