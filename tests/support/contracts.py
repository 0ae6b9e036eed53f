"""Contracts for the anvil chain, written in assembly so that no compiler is needed.

Token: like an ERC-20, with balances at storage slot = address. WETH: the same plus deposit and withdraw, which mint and
burn by Deposit and Withdrawal logs without a Transfer. Router: forwards a call to a target, so that call frames nest.
"""

from __future__ import annotations

from tests.support.evm_assembly import assemble, creation_code

TRANSFER = 0xDDF252AD1BE2C89B69C2B068FC378DAA952BA7F163C4A11628F55A4DF523B3EF
DEPOSIT = 0xE1FFFCC4923D04B559F4D29A8BFC6CDA04EB5B0D3C460751C2402C5C5CC9109C
WITHDRAWAL = 0x7FCF532C15F0A6DB0BD6D0E038BEA71D30D808C7D98CB3BF7268A95BF5081B65

_DISPATCH = "0 CALLDATALOAD 224 SHR"
_REVERT = "revert: 0 0 REVERT"

# Stack: amount, account -> (empty); the account gains the amount.
_CREDIT = "DUP2 SLOAD ADD SWAP1 SSTORE"
# Stack: amount, account -> (empty); reverts when the account has less.
_DEBIT = "DUP2 SLOAD DUP2 DUP2 LT @revert JUMPI SUB SWAP1 SSTORE"

_TRANSFER = f"""
transfer:                              ; transfer(address to, uint256 amount)
  CALLER 36 CALLDATALOAD {_DEBIT}
  4 CALLDATALOAD 36 CALLDATALOAD {_CREDIT}
  36 CALLDATALOAD 0 MSTORE
  4 CALLDATALOAD CALLER {TRANSFER:#x} 32 0 LOG3
  1 0 MSTORE 32 0 RETURN
"""
_BALANCE_OF = """
balance_of:                            ; balanceOf(address)
  4 CALLDATALOAD SLOAD 0 MSTORE 32 0 RETURN
"""
_TOKEN = f"""
  {_DISPATCH}
  DUP1 0x40c10f19 EQ @mint JUMPI
  DUP1 0x42966c68 EQ @burn JUMPI
  DUP1 0xa9059cbb EQ @transfer JUMPI
  DUP1 0x70a08231 EQ @balance_of JUMPI
  {_REVERT}
mint:                                  ; mint(address to, uint256 amount)
  4 CALLDATALOAD 36 CALLDATALOAD {_CREDIT}
  36 CALLDATALOAD 0 MSTORE
  4 CALLDATALOAD 0 {TRANSFER:#x} 32 0 LOG3 STOP
burn:                                  ; burn(uint256 amount)
  CALLER 4 CALLDATALOAD {_DEBIT}
  4 CALLDATALOAD 0 MSTORE
  0 CALLER {TRANSFER:#x} 32 0 LOG3 STOP
{_TRANSFER}{_BALANCE_OF}
"""
_WETH = f"""
  {_DISPATCH}
  DUP1 0xd0e30db0 EQ @deposit JUMPI
  DUP1 0x2e1a7d4d EQ @withdraw JUMPI
  DUP1 0xa9059cbb EQ @transfer JUMPI
  DUP1 0x70a08231 EQ @balance_of JUMPI
  {_REVERT}
deposit:                               ; deposit()
  CALLER CALLVALUE {_CREDIT}
  CALLVALUE 0 MSTORE
  CALLER {DEPOSIT:#x} 32 0 LOG2 STOP
withdraw:                              ; withdraw(uint256 amount): sends the ether back
  CALLER 4 CALLDATALOAD {_DEBIT}
  0 0 0 0 4 CALLDATALOAD CALLER GAS CALL ISZERO @revert JUMPI
  4 CALLDATALOAD 0 MSTORE
  CALLER {WITHDRAWAL:#x} 32 0 LOG2 STOP
{_TRANSFER}{_BALANCE_OF}
"""
# Input: one flag byte (0: a failed call reverts all, else it is swallowed), a 20-byte target, its call data.
_ROUTER = f"""
  CALLDATASIZE ISZERO @received JUMPI  ; plain ether, as WETH's withdraw sends it
  21 CALLDATASIZE SUB 21 0 CALLDATACOPY
  0 0 21 CALLDATASIZE SUB 0 CALLVALUE 1 CALLDATALOAD 96 SHR GAS CALL
  @received JUMPI
  0 CALLDATALOAD 248 SHR @received JUMPI
  {_REVERT}
received: STOP
"""

TOKEN = creation_code(assemble(_TOKEN))
WETH = creation_code(assemble(_WETH))
ROUTER = creation_code(assemble(_ROUTER))


def mint(to: str, amount: int) -> str:
    return f"0x40c10f19{_address(to)}{amount:064x}"


def transfer(to: str, amount: int) -> str:
    return f"0xa9059cbb{_address(to)}{amount:064x}"


def burn(amount: int) -> str:
    return f"0x42966c68{amount:064x}"


def balance_of(account: str) -> str:
    return f"0x70a08231{_address(account)}"


def deposit() -> str:
    return "0xd0e30db0"


def withdraw(amount: int) -> str:
    return f"0x2e1a7d4d{amount:064x}"


def routed(target: str, data: str, *, swallow_failure: bool = False) -> str:
    """Return call data with which the router calls ``target`` with ``data`` and the value that it received."""
    return f"0x{swallow_failure:02x}{target.removeprefix('0x')}{data.removeprefix('0x')}"


def _address(account: str) -> str:
    return account.removeprefix("0x").lower().rjust(64, "0")
