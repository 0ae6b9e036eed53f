"""The table of chains, by chain id. An id that is not in it gets what standard forms allow.

Heights and ids come from the chains' own configurations. A row without a fork's height has had the fork from block 0.
"""

from __future__ import annotations

from trace_dagster.datasets.chain import Chain, ChainContracts, Form, Open, TransactionForm

DEVCHAIN_ID = 20143
"""The seeded chain that the laptop stack serves (`trace_dagster.devchain`)."""

STAKING_PRECOMPILE = "0x0000000000000000000000000000000000001000"
"""Monad's staking precompile; the devchain imitates it."""

_WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
_WMON = "0x3bd359C1119dA7Da1D913D1C4D2B7c461115433A"
_MONAD_HEADS = ("proposed", "voted", "finalized")
"""MonadBFT's states of a block, in the order of HEAD_TAGS: https://docs.monad.xyz/monad-arch/consensus/block-states."""
_MONAD = ChainContracts(_WMON, "WMON", STAKING_PRECOMPILE)

_OP_TYPES: dict[int, TransactionForm] = {0x7E: "op_deposit"}
_ARBITRUM_TYPES: dict[int, TransactionForm] = {
    0x64: "arbitrum_deposit",
    0x65: "arbitrum_unsigned",
    0x66: "arbitrum_contract",
    0x68: "arbitrum_retry",
    0x69: "arbitrum_submit_retryable",
    0x6A: "arbitrum_internal",
}
_CLASSIC_TYPES: dict[int, TransactionForm] = {**_ARBITRUM_TYPES, 0x78: "arbitrum_classic"}
_POLYGON_TYPES: dict[int, TransactionForm] = {0x7F: "polygon_state_sync"}
_CELO_TYPES: dict[int, TransactionForm] = {
    **_OP_TYPES,
    0x7A: "celo_fee_in_celo",
    0x7B: "celo_fee_currency",
    0x7C: "celo_fee_currency_gateway",
}
_SCROLL_TYPES: dict[int, TransactionForm] = {0x7E: "scroll_l1_message"}

_OP_DEPTH = 3_600
_ARBITRUM_DEPTH = 14_400
"""About an hour of blocks: a rollup's blocks are final once their batches are in final blocks of L1."""

_OP_NOTES = "Deposits (type 0x7e) carry their sender; their nonce and gas price are in no commitment."
_ARBITRUM_NOTES = "Transactions of types 0x64 to 0x6a carry their sender; their gas price is in no commitment."
_NOT_PROVABLE_NOTES = "Not provable: use `verify: structural` with a quorum of endpoints of several providers."


def _made_up_status(byzantium: int) -> Open:
    return Open(
        Form("receipts"),
        "the node leaves out the state roots of receipts before Byzantium, so logs are only compared with the bloom",
        end=byzantium,
        after_all=True,
    )


def _unshown_state_sync(madhugiri: int) -> Open:
    return Open(
        Form("transactions", 0x7F),
        "the node does not give the bytes of state-sync transactions, so this block's transactions cannot be proven",
        first=madhugiri,
        after_all=True,
    )


def _celo_l1(l2: int) -> Open:
    return Open(
        Form("receipts"),
        "Celo's receipts root covers system calls before its L2, whose receipt nodes do not show in every block",
        end=l2,
    )


def _celo_fee(form: int, member: str, l2: int) -> Open:
    return Open(
        Form("receipts", form),
        f"the node leaves out {member} of receipts, which the receipts root covers",
        first=l2,
        after_all=True,
    )


def _celo_open(l2: int) -> tuple[Open, ...]:
    return _celo_l1(l2), _celo_fee(0x7B, "baseFee", l2), _celo_fee(0x7A, "feeInFeeCurrency", l2)


def _op(chain_id: int, name: str, **more: int) -> Chain:
    """Return the row of an OP Stack chain; ``more`` are heights of forks."""
    return Chain(chain_id, name, types=_OP_TYPES, finality_blocks=_OP_DEPTH, forks=more, notes=_OP_NOTES)


def _open_parts(reason: str, *parts: str) -> tuple[Open, ...]:
    forms = {"header": Form("header"), "transactions": Form("transactions"), "receipts": Form("receipts")}
    return tuple(Open(forms[part], reason) for part in parts)


_NO_HEADER_HASH = "the chain's block hash is not that of its header, so what a header says is only claimed"
_NO_ROOTS = "the chain's headers do not commit to transactions and receipts as Ethereum's do"
_NO_TRANSACTIONS_ROOT = "the chain's transactions root does not come out of the transactions that nodes show"

_CLASSIC_HASHES = Open(
    Form("transactions", 0x78),
    "the hash and the sender of an unsigned Arbitrum Classic transaction cannot be computed",
    end=22_207_817,
)
_SYSTEM_TRANSACTIONS = "the node shows system transactions in the block, which are in no root"
_STABLE_TYPE = "the form of type 0x3f is not public"

_ETHEREUM_FAMILY = (
    Chain(
        1,
        "Ethereum",
        finality_blocks=64,
        burns_base_fee=True,
        forks={"byzantium": 4_370_000},
        contracts=ChainContracts(_WETH, "WETH", None),
        open=(_made_up_status(4_370_000),),
        notes="Before Byzantium a receipt has a state root and no status: `success` is null.",
    ),
    Chain(
        3,
        "Ropsten",
        burns_base_fee=True,
        forks={"byzantium": 1_700_000},
        open=(_made_up_status(1_700_000),),
        notes="Shut down; its history is read like Ethereum's.",
    ),
    Chain(17000, "Holesky", finality_blocks=64, burns_base_fee=True),
    Chain(560048, "Hoodi", finality_blocks=64, burns_base_fee=True),
    Chain(11155111, "Sepolia", finality_blocks=64, burns_base_fee=True),
    Chain(
        61,
        "Ethereum Classic",
        has_finalized_tag=False,
        finality_blocks=10_000,
        forks={"byzantium": 8_772_000},
        open=(_made_up_status(8_772_000),),
        notes="Proof of work: no block is final, and reorganisations of thousands of blocks have happened.",
    ),
    Chain(100, "Gnosis", header="aura", notes="Before the merge a header ends with its AuRa step and signature."),
    Chain(10200, "Gnosis Chiado", header="aura"),
)
_OP_STACK = (
    Chain(
        10,
        "OP Mainnet",
        types=_OP_TYPES,
        finality_blocks=_OP_DEPTH,
        forks={"bedrock": 105_235_063},
        notes=f"{_OP_NOTES} Before Bedrock, transactions from L1 have no signature: their sender is only claimed.",
    ),
    _op(420, "OP Goerli", bedrock=4_061_224),
    _op(11155420, "OP Sepolia"),
    _op(8453, "Base"),
    _op(84531, "Base Goerli"),
    _op(84532, "Base Sepolia"),
    _op(130, "Unichain"),
    _op(1301, "Unichain Sepolia"),
    _op(480, "World Chain"),
    _op(4801, "World Chain Sepolia"),
    _op(7777777, "Zora"),
    _op(999999999, "Zora Sepolia"),
    _op(57073, "Ink"),
    _op(763373, "Ink Sepolia"),
    _op(34443, "Mode"),
    _op(919, "Mode Sepolia"),
    _op(1868, "Soneium"),
    _op(1946, "Soneium Minato"),
    _op(1135, "Lisk"),
    _op(4202, "Lisk Sepolia"),
    _op(252, "Fraxtal"),
    _op(60808, "BOB"),
    _op(204, "opBNB"),
    _op(5611, "opBNB testnet"),
)
_ARBITRUM = (
    Chain(
        42161,
        "Arbitrum One",
        types=_CLASSIC_TYPES,
        finality_blocks=_ARBITRUM_DEPTH,
        forks={"nitro": 22_207_817},
        open=(_CLASSIC_HASHES,),
        notes=f"{_ARBITRUM_NOTES} Before Nitro, status and gas used are in no commitment.",
    ),
    Chain(42170, "Arbitrum Nova", types=_ARBITRUM_TYPES, finality_blocks=_ARBITRUM_DEPTH, notes=_ARBITRUM_NOTES),
    Chain(421614, "Arbitrum Sepolia", types=_ARBITRUM_TYPES, finality_blocks=_ARBITRUM_DEPTH, notes=_ARBITRUM_NOTES),
)
_OTHERS = (
    Chain(
        137,
        "Polygon PoS",
        types=_POLYGON_TYPES,
        forks={"delhi": 38_189_056, "madhugiri": 80_084_800},
        open=(_unshown_state_sync(80_084_800),),
        notes="Before Madhugiri, state-sync transactions and their logs are in no commitment, but for their hash.",
    ),
    Chain(
        80002,
        "Polygon Amoy",
        types=_POLYGON_TYPES,
        forks={"madhugiri": 28_899_616},
        open=(_unshown_state_sync(28_899_616),),
    ),
    Chain(43114, "Avalanche C-Chain", header="avalanche", notes="The header has fields of its own."),
    Chain(43113, "Avalanche Fuji", header="avalanche"),
    Chain(56, "BNB Smart Chain"),
    Chain(97, "BNB Smart Chain testnet"),
    Chain(
        42220,
        "Celo",
        header="celo",
        types=_CELO_TYPES,
        forks={"gingerbread": 21_616_000, "l2": 31_056_500},
        open=_celo_open(31_056_500),
        notes="Transactions that pay in another currency have a gas price that is in no commitment.",
    ),
    Chain(
        44787,
        "Celo Alfajores",
        header="celo",
        types=_CELO_TYPES,
        forks={"gingerbread": 19_814_000, "l2": 26_384_000},
        open=_celo_open(26_384_000),
    ),
    Chain(11142220, "Celo Sepolia", types=_CELO_TYPES, open=_celo_open(0)[1:]),
    Chain(
        534352,
        "Scroll",
        header="scroll",
        types=_SCROLL_TYPES,
        finality_blocks=_OP_DEPTH,
        notes="Since EuclidV2 the block hash leaves out extraData, which is then only claimed.",
    ),
    Chain(534351, "Scroll Sepolia", header="scroll", types=_SCROLL_TYPES, finality_blocks=_OP_DEPTH),
    Chain(59144, "Linea", finality_blocks=_OP_DEPTH),
    Chain(146, "Sonic"),
    Chain(
        999,
        "Hyperliquid EVM",
        has_system_senders=True,
        open=(
            Open(Form("transactions"), _SYSTEM_TRANSACTIONS, after_all=True),
            Open(Form("receipts"), _SYSTEM_TRANSACTIONS, after_all=True),
        ),
        notes="Nodes that leave system transactions out of blocks are proven.",
    ),
    Chain(143, "Monad", contracts=_MONAD, burns_base_fee=True, head_labels=_MONAD_HEADS),
    Chain(10143, "Monad testnet", contracts=_MONAD, burns_base_fee=True, head_labels=_MONAD_HEADS),
    Chain(
        DEVCHAIN_ID,
        "trace devchain",
        burns_base_fee=True,
        head_labels=_MONAD_HEADS,
        contracts=ChainContracts("0x754704bc059f8c67012fed69bc8a327a5aafb603", "devchain token", STAKING_PRECOMPILE),
    ),
)
_NOT_PROVABLE = (
    Chain(
        324,
        "zkSync Era",
        header="other",
        finality_blocks=_OP_DEPTH,
        open=(*_open_parts(_NO_HEADER_HASH, "header"), *_open_parts(_NO_ROOTS, "transactions", "receipts")),
        notes=_NOT_PROVABLE_NOTES,
    ),
    Chain(
        25,
        "Cronos",
        header="other",
        open=(*_open_parts(_NO_HEADER_HASH, "header"), *_open_parts(_NO_ROOTS, "transactions", "receipts")),
        notes=_NOT_PROVABLE_NOTES,
    ),
    Chain(
        988,
        "Stable",
        header="other",
        open=(
            *_open_parts(_NO_HEADER_HASH, "header"),
            Open(Form("transactions", 0x3F), _STABLE_TYPE),
            Open(Form("receipts", 0x3F), _STABLE_TYPE),
        ),
        notes="Transactions and receipts give the roots that the header claims, but for blocks with type 0x3f.",
    ),
    Chain(
        4217,
        "Tempo",
        header="other",
        open=(*_open_parts(_NO_HEADER_HASH, "header"), *_open_parts(_NO_TRANSACTIONS_ROOT, "transactions")),
        notes="Receipts give the root that the header claims.",
    ),
    Chain(
        964,
        "Bittensor EVM",
        header="other",
        open=(*_open_parts(_NO_HEADER_HASH, "header"), *_open_parts(_NO_TRANSACTIONS_ROOT, "transactions")),
        notes="Receipts give the root that the header claims.",
    ),
)
_CHAINS = (*_ETHEREUM_FAMILY, *_OP_STACK, *_ARBITRUM, *_OTHERS, *_NOT_PROVABLE)

COMPILED = Chain(0, "forms of the compiled proof", types={**_OP_TYPES, **_ARBITRUM_TYPES})
"""The forms of every row that the compiled proof gives, whatever its chain: their types do not overlap."""

_BY_ID = {chain.chain_id: chain for chain in _CHAINS}


def chain_of(chain_id: int) -> Chain:
    """Return the chain's row; for an id that is not in the table one with standard forms, ``is_listed`` False."""
    return _BY_ID.get(chain_id) or Chain(chain_id, f"chain {chain_id}", is_listed=False)


def listed_chains() -> tuple[Chain, ...]:
    """Return the rows of the table, by chain id."""
    return tuple(sorted(_CHAINS, key=lambda chain: chain.chain_id))


def contracts_of(chain_id: int) -> ChainContracts | None:
    """Return the chain's well-known contracts, or None if the chain is not in the table."""
    return chain_of(chain_id).contracts
