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
-- Transfers move, Deposit and Withdrawal of WETH-like tokens mint and burn. Exact as in erc20_total_supply_by_block.
with events as (
    select
        block_number,
        topic0 = '\xdd\xf2\x52\xad\x1b\xe2\xc8\x9b\x69\xc2\xb0\x68\xfc\x37\x8d\xaa\x95\x2b\xa7\xf1\x63\xc4\xa1\x16\x28\xf5\x5a\x4d\xf5\x23\xb3\xef'::blob as is_transfer,
        topic0 = '\xe1\xff\xfc\xc4\x92\x3d\x04\xb5\x59\xf4\xd2\x9a\x8b\xfc\x6c\xda\x04\xeb\x5b\x0d\x3c\x46\x07\x51\xc2\x40\x2c\x5c\x5c\xc9\x10\x9c'::blob as is_deposit,
        array_slice(topic1, 13, 32) as first_party,
        array_slice(topic2, 13, 32) as second_party,
        array_slice(data, 25, 32)::bit::ubigint::hugeint as limb0,
        array_slice(data, 17, 24)::bit::ubigint::hugeint as limb1,
        array_slice(data, 9, 16)::bit::ubigint::hugeint as limb2,
        array_slice(data, 1, 8)::bit::ubigint::hugeint as limb3
    from logs
    where address = $token
        and block_number <= $to_block
        and octet_length(data) = 32
        and (
            (
                topic0 = '\xdd\xf2\x52\xad\x1b\xe2\xc8\x9b\x69\xc2\xb0\x68\xfc\x37\x8d\xaa\x95\x2b\xa7\xf1\x63\xc4\xa1\x16\x28\xf5\x5a\x4d\xf5\x23\xb3\xef'::blob
                and topic2 is not null and topic3 is null
            )
            or (
                topic0 in (
                    '\xe1\xff\xfc\xc4\x92\x3d\x04\xb5\x59\xf4\xd2\x9a\x8b\xfc\x6c\xda\x04\xeb\x5b\x0d\x3c\x46\x07\x51\xc2\x40\x2c\x5c\x5c\xc9\x10\x9c'::blob,
                    '\x7f\xcf\x53\x2c\x15\xf0\xa6\xdb\x0b\xd6\xd0\xe0\x38\xbe\xa7\x1d\x30\xd8\x08\xc7\xd9\x8c\xb3\xbf\x72\x68\xa9\x5b\xf5\x08\x1b\x65'::blob
                )
                and topic1 is not null and topic2 is null
            )
        )
),
parties as (
    select block_number, case when is_transfer then second_party else first_party end as holder, true as is_in, limb0, limb1, limb2, limb3
    from events where is_transfer or is_deposit
    union all
    select block_number, first_party as holder, false as is_in, limb0, limb1, limb2, limb3
    from events where not is_deposit
),
bucketed as (
    -- the first sample at or after the change
    select
        *,
        case
            when block_number <= $from_block then $from_block
            else least($from_block + ((block_number - $from_block + $step - 1) // $step) * $step, $to_block)
        end as sample
    from parties
    where holder <> '\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'::blob
),
sums as (
    select
        holder, sample, is_in,
        sum(limb0) as limb0, sum(limb1) as limb1, sum(limb2) as limb2, sum(limb3) as limb3
    from bucketed
    group by holder, sample, is_in
),
step2 as (
    select
        *,
        list_reduce(list_transform(range(65), i -> limb3::varchar::bignum), (x, y) -> x + x) + limb2::varchar::bignum as high
    from sums
),
step1 as (
    select *, list_reduce(list_transform(range(65), i -> high), (x, y) -> x + x) + limb1::varchar::bignum as middle
    from step2
),
amounts as (
    select
        holder, sample, is_in,
        list_reduce(list_transform(range(65), i -> middle), (x, y) -> x + x) + limb0::varchar::bignum as amount
    from step1
),
changes as (
    select
        holder, sample,
        coalesce(sum(amount) filter (where is_in), '0'::bignum)
        - coalesce(sum(amount) filter (where not is_in), '0'::bignum) as change
    from amounts
    group by holder, sample
),
ranked as (
    select holder, row_number() over (order by sum(change) desc, holder) as rank
    from changes
    group by holder
    having sum(change) > '0'::bignum
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
    sum(coalesce(changes.change, '0'::bignum)) over (partition by ranked.holder order by samples.sample)::varchar as balance
from ranked
cross join samples
left join changes on changes.holder = ranked.holder and changes.sample = samples.sample
order by ranked.rank, samples.sample
