-- title: Total supply of an ERC-20 token by block
-- grain: one row per block that changed the supply, in block order
-- inputs: logs
-- parameters:
--   token (address): the token's contract
-- starts: at the first synced block; counts are relative to it unless the sync starts where the contract does
-- columns:
--   block_number: the block
--   minted, burned: what this block added and removed, in the token's smallest unit, decimal text
--   total_supply: the supply after the block, decimal text
--
-- Mints and burns are Transfers from and to the zero address, or the Deposit and Withdrawal of WETH-like tokens.
-- A Transfer with four topics is an ERC-721's and does not count. Values are exact (macros/uint256.sql).
with events as (
    select
        block_number,
        case when topic0 = transfer_topic() then topic_address(topic1) = zero_address() else topic0 = deposit_topic() end as is_mint,
        case when topic0 = transfer_topic() then topic_address(topic2) = zero_address() else topic0 = withdrawal_topic() end as is_burn,
        u256_limb(data, 0) as l0, u256_limb(data, 1) as l1, u256_limb(data, 2) as l2, u256_limb(data, 3) as l3
    from logs
    where address = $token and is_token_event(topic0, topic1, topic2, topic3, data)
),
by_block as (
    select
        block_number,
        coalesce(sum(l0) filter (where is_mint), 0) as minted0, coalesce(sum(l0) filter (where is_burn), 0) as burned0,
        coalesce(sum(l1) filter (where is_mint), 0) as minted1, coalesce(sum(l1) filter (where is_burn), 0) as burned1,
        coalesce(sum(l2) filter (where is_mint), 0) as minted2, coalesce(sum(l2) filter (where is_burn), 0) as burned2,
        coalesce(sum(l3) filter (where is_mint), 0) as minted3, coalesce(sum(l3) filter (where is_burn), 0) as burned3
    from events
    where is_mint or is_burn
    group by block_number
)
select
    block_number,
    u256_text(u256_carry(minted0, minted1, minted2, minted3)) as minted,
    u256_text(u256_carry(burned0, burned1, burned2, burned3)) as burned,
    u256_text(u256_carry(
        sum(minted0 - burned0) over blocks, sum(minted1 - burned1) over blocks,
        sum(minted2 - burned2) over blocks, sum(minted3 - burned3) over blocks
    )) as total_supply
from by_block
window blocks as (order by block_number)
order by block_number
