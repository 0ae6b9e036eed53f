"""The history of the anvil chain, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coincurve import PrivateKey
from eth_hash.auto import keccak
from rlp import encode

from tests.support import contracts
from tests.support.anvil_node import CHAIN_ID, GENESIS_TIMESTAMP, SECONDS_PER_BLOCK, Anvil

GAS = hex(1_000_000)
GAS_PRICE = hex(3 * 10**9)
ETHER = 10**18
HUGE = 2**200 + 12345  # larger than any machine integer
BUSY_BLOCKS = 24
TRANSFERS_PER_BUSY_BLOCK = 4
EMPTY_BLOCKS = 5
BLOCKS_TO_FINALITY = 2  # with slots of one block per epoch
# The node's well-known development key of accounts[9], for signing an authorization (type 4).
_DELEGATOR_KEY = bytes.fromhex("2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6")


@dataclass(frozen=True)
class AnvilChain:
    """A built chain: its node, its newest block's number and the addresses of its contracts (0x)."""

    node: Anvil
    head: int
    accounts: tuple[str, ...]
    token: str
    weth: str
    router: str

    @property
    def finalized(self) -> int:
        """The newest final block."""
        return int(self.node.rpc("eth_getBlockByNumber", "finalized", False)["number"], 16)

    @property
    def url(self) -> str:
        return self.node.url

    def rpc(self, method: str, *params: Any) -> Any:
        return self.node.rpc(method, *params)


def build_history(node: Anvil) -> AnvilChain:
    """Mine the whole history on a fresh node."""
    accounts = tuple(node.rpc("eth_accounts"))
    node.rpc("anvil_setBlockTimestampInterval", SECONDS_PER_BLOCK)
    node.rpc("evm_setNextBlockTimestamp", hex(GENESIS_TIMESTAMP + SECONDS_PER_BLOCK))
    token, weth, router = _deploy(node, accounts[0])
    chain = AnvilChain(node, 0, accounts, token, weth, router)
    _mint_and_deposit(chain)
    _nest_and_fail(chain)
    node.mine_empty(EMPTY_BLOCKS)
    _be_busy(chain)
    _every_type(chain)
    _burn_and_withdraw(chain)
    node.mine_empty(BLOCKS_TO_FINALITY + 1)
    head = int(node.rpc("eth_blockNumber"), 16)
    return AnvilChain(node, head, accounts, token, weth, router)


def _call(sender: str, to: str | None, data: str = "0x", value: int = 0, **more: Any) -> dict[str, Any]:
    """Return a transaction of type 2, unless ``more`` has another type."""
    target = {} if to is None else {"to": to}
    return {"from": sender, **target, "data": data, "value": hex(value), "gas": GAS, **more}


def _deploy(node: Anvil, sender: str) -> list[str]:
    codes = (contracts.TOKEN, contracts.WETH, contracts.ROUTER)
    hashes = node.mine(*(_call(sender, None, "0x" + code.hex()) for code in codes))
    return [node.rpc("eth_getTransactionReceipt", each)["contractAddress"] for each in hashes]


def _mint_and_deposit(chain: AnvilChain) -> None:
    owner, *others = chain.accounts
    chain.node.mine(
        _call(owner, chain.token, contracts.mint(owner, HUGE)),
        *(_call(owner, chain.token, contracts.mint(other, 10**24 + n)) for n, other in enumerate(others)),
    )
    chain.node.mine(*(_call(each, chain.weth, contracts.deposit(), 3 * ETHER) for each in chain.accounts[:5]))


def _nest_and_fail(chain: AnvilChain) -> None:
    """Mine calls of depth three, an inner failure that the caller ignores, and transactions that revert at each
    depth.
    """
    sender, router = chain.accounts[1], chain.router
    too_much = contracts.transfer(sender, 2**255)
    two_deep = contracts.routed(router, contracts.routed(chain.weth, contracts.deposit()))
    chain.node.mine(
        _call(sender, router, two_deep, ETHER),
        _call(sender, router, contracts.routed(chain.weth, contracts.withdraw(ETHER // 4))),
        _call(sender, router, contracts.routed(chain.token, too_much, swallow_failure=True)),
        _call(sender, router, contracts.routed(chain.token, too_much)),
        _call(sender, chain.token, too_much),
        _call(sender, chain.weth, "0xdeadbeef"),
    )


def _be_busy(chain: AnvilChain) -> None:
    """Mine ordinary blocks: ether and token transfers between the accounts; some blocks are empty."""
    accounts = chain.accounts[:9]
    for block in range(BUSY_BLOCKS):
        pairs = [
            (accounts[(block + n) % 9], accounts[(2 * block + n + 1) % 9]) for n in range(TRANSFERS_PER_BUSY_BLOCK)
        ]
        ether = [_call(sender, to, value=block * ETHER // 100 + 1) for sender, to in pairs]
        tokens = [_call(sender, chain.token, contracts.transfer(to, 10**18 + block)) for sender, to in pairs]
        chain.node.mine(*([] if block % 8 == 7 else ether + tokens))


def _every_type(chain: AnvilChain) -> None:
    sender, receiver = chain.accounts[2], chain.accounts[3]
    data = contracts.transfer(receiver, 77)
    access_list = [{"address": chain.token, "storageKeys": ["0x" + "00" * 32]}]
    chain.node.mine(
        _call(sender, chain.token, data, gasPrice=GAS_PRICE, type="0x0"),
        _call(sender, chain.token, data, gasPrice=GAS_PRICE, accessList=access_list, type="0x1"),
        _call(sender, chain.token, data, type="0x2"),
        _call(sender, receiver, type="0x4", authorizationList=[_authorization(chain)]),
    )


def _authorization(chain: AnvilChain) -> dict[str, str]:
    """Return the authorization that lets accounts[9] run the router's code (EIP-7702)."""
    nonce = int(chain.node.rpc("eth_getTransactionCount", chain.accounts[9], "latest"), 16)
    signed = keccak(b"\x05" + encode([CHAIN_ID, bytes.fromhex(chain.router[2:]), nonce]))
    signature = PrivateKey(_DELEGATOR_KEY).sign_recoverable(signed, hasher=None)
    return {
        "chainId": hex(CHAIN_ID),
        "address": chain.router,
        "nonce": hex(nonce),
        "r": hex(int.from_bytes(signature[:32], "big")),
        "s": hex(int.from_bytes(signature[32:64], "big")),
        "yParity": hex(signature[64]),
    }


def _burn_and_withdraw(chain: AnvilChain) -> None:
    owner = chain.accounts[0]
    chain.node.mine(
        _call(owner, chain.token, contracts.burn(2**199)),
        _call(owner, chain.weth, contracts.withdraw(ETHER)),
        _call(owner, chain.weth, contracts.transfer(chain.accounts[5], ETHER // 2)),
    )
