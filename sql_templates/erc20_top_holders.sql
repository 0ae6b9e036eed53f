-- title: Top holders of an ERC-20 token and their balances over time
-- grain: one row per top holder and sampled block, by rank, then block
-- inputs: logs
-- parameters:
--   token (address): the token's contract
--   top_n (integer): how many holders
--   from_block (integer): first block of the window that is sampled
--   to_block (integer): last block, inclusive; holders are ranked by their balance after it
--   step (integer): blocks between samples; the last block is always one
-- starts: at the first synced block; counts are relative to it unless the sync starts where the contract does
-- columns:
--   rank: 1 for the largest balance after to_block; ties by address
--   holder: 0x address
--   block_number: the sampled block
--   balance: the holder's balance after it, in the token's smallest unit, decimal text
--
-- Transfers move, Deposit and Withdrawal of WETH-like tokens mint and burn. Values are exact (macros/uint256.sql).
with events as (
    select
        block_number,
        topic0 = transfer_topic() as is_transfer,
        topic0 = deposit_topic() as is_deposit,
        topic_address(topic1) as first_party,
        topic_address(topic2) as second_party,
        u256_limb(data, 0) as l0, u256_limb(data, 1) as l1, u256_limb(data, 2) as l2, u256_limb(data, 3) as l3
    from logs
    where address = $token and block_number <= $to_block and is_token_event(topic0, topic1, topic2, topic3, data)
),
moves as (
    select block_number, case when is_transfer then second_party else first_party end as holder, l0, l1, l2, l3
    from events where is_transfer or is_deposit
    union all
    select block_number, first_party as holder, -l0 as l0, -l1 as l1, -l2 as l2, -l3 as l3
    from events where not is_deposit
),
changes as (
    -- a change counts for the first sample at or after it
    select
        holder,
        case
            when block_number <= $from_block then $from_block
            else least($from_block + ((block_number - $from_block + $step - 1) // $step) * $step, $to_block)
        end as sample,
        sum(l0) as l0, sum(l1) as l1, sum(l2) as l2, sum(l3) as l3
    from moves
    where holder <> zero_address()
    group by holder, sample
),
balances as (
    select holder, u256_carry(sum(l0), sum(l1), sum(l2), sum(l3)) as balance
    from changes
    group by holder
),
ranked as (
    select holder, row_number() over (order by balance desc, holder) as rank
    from balances
    where u256_is_positive(balance)
    qualify rank <= $top_n
),
samples as (
    select unnest(range($from_block, $to_block, $step)) as sample
    union
    select $to_block as sample
)
select
    ranked.rank,
    '0x' || lower(hex(ranked.holder)) as holder,
    samples.sample as block_number,
    u256_text(u256_carry(
        sum(coalesce(changes.l0, 0)) over history, sum(coalesce(changes.l1, 0)) over history,
        sum(coalesce(changes.l2, 0)) over history, sum(coalesce(changes.l3, 0)) over history
    )) as balance
from ranked
cross join samples
left join changes on changes.holder = ranked.holder and changes.sample = samples.sample
window history as (partition by ranked.holder order by samples.sample)
order by ranked.rank, samples.sample
