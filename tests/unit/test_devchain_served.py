"""The devchain as clients see it: its ledger compared with its logs, the real engine, and its process."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict

import pytest

from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import DevChain

BLOCKS = 700
START, END = 100, 400
CHECKED_BLOCKS = (0, 1, 57, 350, BLOCKS - 1)
DATASETS = ("blocks", "transactions", "logs", "geth_calls")

EXTRACT = """
import json, os, sys
import cryo
span = {"rpc": sys.argv[1], "start_block": int(sys.argv[2]), "end_block": int(sys.argv[3]), "verbose": False}
rows = {name: len(cryo.collect(name, **span)) for name in sys.argv[4:]}
print(json.dumps(rows), flush=True)
os._exit(0)  # leaving normally right after a fast call crashes now and then
"""


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


@pytest.fixture(scope="module")
def url():
    command = [
        sys.executable,
        "-m",
        "trace_dagster.devchain",
        "--port",
        "0",
        "--seed",
        "7",
        "--blocks",
        str(BLOCKS),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline()
        assert ready.startswith("devchain ready port="), ready
        address = f"http://127.0.0.1:{int(ready.split('=')[1])}"
        wait_healthy(address, process)
        yield address
        process.send_signal(signal.SIGTERM)
        # uvicorn shuts down cleanly and then raises the signal again, so both exit codes are an orderly end
        assert process.wait(10) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_healthy(address, process):
    """Wait until the server answers: it prints the ready line shortly before the socket listens."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the devchain did not answer, exit code {process.poll()}")


def call(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["result"]


@pytest.fixture(scope="module")
def logs(url):
    """Return every log of the chain, from the server."""
    return call(url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(BLOCKS - 1)})


def account(topic):
    return bytes.fromhex(topic[-40:])


def word(log, index):
    return int(log["data"][2 + 64 * index : 66 + 64 * index], 16)


def until(logs, block, address):
    return [log for log in logs if log["address"] == "0x" + address.hex() and int(log["blockNumber"], 16) <= block]


def balances_from(logs, token, block):
    found = defaultdict(int)
    for log in until(logs, block, token):
        topic, *indexed = log["topics"]
        if topic == "0x" + constants.TRANSFER.hex() and len(indexed) == 2:
            found[account(indexed[0])] -= word(log, 0)
            found[account(indexed[1])] += word(log, 0)
        elif topic == "0x" + constants.DEPOSIT.hex():
            found[account(indexed[0])] += word(log, 0)
        elif topic == "0x" + constants.WITHDRAWAL.hex():
            found[account(indexed[0])] -= word(log, 0)
    found.pop(constants.ZERO_ADDRESS, None)
    return {holder: amount for holder, amount in found.items() if amount}


@pytest.mark.parametrize("token", [constants.TOKEN, constants.WRAPPED], ids=["token", "wrapped"])
@pytest.mark.parametrize("block", CHECKED_BLOCKS)
def test_balances_and_supply_follow_from_the_served_logs(chain, logs, token, block):
    replayed = balances_from(logs, token, block)
    assert chain.ledger.balances(token, block) == replayed
    assert chain.ledger.total_supply(token, block) == sum(replayed.values())
    assert chain.ledger.supplies(token, block + 1)[-1] == sum(replayed.values())


@pytest.mark.parametrize("block", CHECKED_BLOCKS)
def test_stakes_follow_from_the_served_logs(chain, logs, block):
    replayed = defaultdict(int)
    for log in until(logs, block, constants.STAKING):
        if log["topics"][0] == "0x" + constants.DELEGATE.hex():
            replayed[int(log["topics"][1], 16)] += word(log, 0)
        elif log["topics"][0] == "0x" + constants.UNDELEGATE.hex():
            replayed[int(log["topics"][1], 16)] -= word(log, 1)
    assert chain.ledger.stakes(block) == {validator: amount for validator, amount in replayed.items() if amount}


def test_the_chain_holds_what_trips_careless_queries(logs):
    transfers = [log for log in logs if log["topics"][0] == "0x" + constants.TRANSFER.hex()]
    assert {len(log["topics"]) for log in transfers} == {3, 4}
    assert any(word(log, 0) > 2**128 for log in transfers if len(log["topics"]) == 3)
    outside = "0x" + "00" * 32
    wrapped = [log for log in transfers if log["address"] == "0x" + constants.WRAPPED.hex()]
    assert wrapped
    assert not [log for log in wrapped if outside in log["topics"]]


def test_native_supply_follows_from_served_blocks_and_rewards(url, chain):
    supply = constants.GENESIS_SUPPLY_WEI
    for number in range(60):
        block = call(url, "eth_getBlockByNumber", hex(number), True)
        supply -= int(block["gasUsed"], 16) * int(block["baseFeePerGas"], 16)
        supply += sum(int(t["value"], 16) for t in block["transactions"] if t["gas"] == "0x0")
        assert chain.native_supply(number) == supply


def test_another_process_serves_the_very_same_chain(url, chain):
    for number in (0, 1, 99, BLOCKS - 1):
        assert call(url, "eth_getBlockByNumber", hex(number), False)["hash"] == "0x" + chain.blocks[number].hash.hex()


def test_the_real_engine_finds_every_row(url, chain):
    command = [sys.executable, "-c", EXTRACT, url, str(START), str(END), *DATASETS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert json.loads(done.stdout) == {name: chain.rows(name, START, END) for name in DATASETS}


def test_the_health_check_answers(url):
    with urllib.request.urlopen(url + "/health", timeout=20) as answer:
        assert answer.status == 200
