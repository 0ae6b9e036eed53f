"""A real EVM node, anvil: its executable from npm, a running process on loopback, and calls to it."""

from __future__ import annotations

import json
import platform
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CHAIN_ID = 31337
GENESIS_TIMESTAMP = 1_700_000_000
SECONDS_PER_BLOCK = 12
READY_SECONDS = 20
STOP_SECONDS = 5
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_anvil(root: Path = REPOSITORY) -> Path | None:
    """Return the executable that npm installed below ``root``/.cache/npm, or None if there is none."""
    machine = _MACHINES.get(platform.machine().lower(), "unknown")
    package = f"anvil-{platform.system().lower()}-{machine}"
    binary = root / ".cache/npm/node_modules/@foundry-rs" / package / "bin/anvil"
    return binary if binary.is_file() else None


class Anvil:
    """A running node at ``url`` that mines only on request."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rpc(self, method: str, *params: Any) -> Any:
        """Return the result of one JSON-RPC call. Raises ``RuntimeError`` with the node's text if it returns an
        error.
        """
        return self.batch([(method, list(params))])[0]

    def batch(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """Return the results of several calls in one request, in order."""
        body = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate(calls)
        ]
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answers = sorted(json.load(response), key=lambda answer: answer["id"])
        for answer, (method, _) in zip(answers, calls, strict=True):
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
        return [answer["result"] for answer in answers]

    def mine(self, *transactions: dict[str, Any]) -> list[str]:
        """Mine one new block with the transactions, in order; return their hashes."""
        calls = [("eth_sendTransaction", [transaction]) for transaction in transactions]
        *hashes, _ = self.batch([*calls, ("evm_mine", [])])
        return hashes

    def mine_empty(self, blocks: int) -> None:
        self.rpc("anvil_mine", hex(blocks), hex(SECONDS_PER_BLOCK))


@contextmanager
def running_anvil(
    binary: Path,
    chain_id: int = CHAIN_ID,
    network: str = "ethereum",
    slots_in_an_epoch: int = 1,
    timestamp: int = GENESIS_TIMESTAMP,
) -> Iterator[Anvil]:
    """Run a fresh node on a free loopback port until the end of the block.

    ``network`` is a family of chains. The safe block is ``slots_in_an_epoch`` behind the newest one, and the finalized
    block twice as far. ``timestamp`` is the time of the first block in seconds.
    """
    with tempfile.TemporaryDirectory(prefix="anvil-") as home:
        command = [
            str(binary), "--host", "127.0.0.1", "--port", "0", "--no-mining", "--order", "fifo",
            "--slots-in-an-epoch", str(slots_in_an_epoch), "--chain-id", str(chain_id), "--timestamp", str(timestamp),
            "--network", network,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, env={"HOME": home}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield Anvil(_listening_url(process))
        finally:
            _end(process)


def _listening_url(process: subprocess.Popen[str]) -> str:
    """Wait until the node prints its address, then keep reading its pipe."""
    assert process.stdout
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("Listening on "):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return f"http://{line.removeprefix('Listening on ').strip()}"
    finally:
        watchdog.cancel()
    raise RuntimeError(f"anvil did not start within {READY_SECONDS} s: {''.join(said)[-500:]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
