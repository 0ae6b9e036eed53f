-- title: Stake by validator, with its concentration
-- grain: one row per validator with stake, largest first
-- inputs: logs
-- parameters:
--   staking (address): the staking contract (Monad: the precompile 0x...1000)
--   to_block (integer): last block, inclusive
-- starts: at the first synced block; counts are relative to it unless the sync starts where the contract does
-- columns:
--   rank: 1 for the largest stake; ties by id
--   validator: the validator's id
--   stake: delegated minus undelegated, in wei, decimal text
--   share: of the total stake, 0 to 1
--   gini: Gini coefficient over all validators with stake, the same in every row
--   top5_share: share of the five largest, the same in every row
--
-- Withdraw and ClaimRewards carry rewards and never change stake. Stakes are exact as HUGEINT (a sum beyond it is an
-- error, not a wrong number); ratios become DOUBLE at the very end.
-- Gini = sum((2i - n - 1) x_i) / (n sum x), i ascending.
with moves as (
    select
        array_slice(topic1, 25, 32)::bit::ubigint as validator,
        topic0 = delegate_topic() as is_delegate,
        case
            when topic0 = delegate_topic()
                then array_slice(data, 1, 32)
            else array_slice(data, 33, 64)
        end as amount
    from logs
    where address = $staking
        and block_number <= $to_block
        and topic2 is not null
        and (
            (
                topic0 = delegate_topic()
                and octet_length(data) = 64
            )
            or (
                topic0 = undelegate_topic()
                and octet_length(data) = 96
            )
        )
),
amounts as (
    select
        validator, is_delegate,
        case
            when u256_limb(amount, 3) = 0 and u256_limb(amount, 2) = 0
                then u256_limb(amount, 1) * 18446744073709551616::hugeint + u256_limb(amount, 0)
            else error('a stake amount is beyond 128 bits')::hugeint
        end as amount
    from moves
),
stakes as (
    select validator, sum(case when is_delegate then amount else -amount end) as stake
    from amounts
    group by validator
    having stake > 0
),
ordered as (
    select
        *,
        row_number() over (order by stake desc, validator) as rank,
        row_number() over (order by stake, validator desc) as ascending
    from stakes
),
totals as (
    select
        sum(stake) as total,
        count(*)::hugeint as validators,
        sum((2 * ascending - 1 - (select count(*) from stakes))::hugeint * stake) as weighted,
        sum(stake) filter (where rank <= 5) as top5
    from ordered
)
select
    ordered.rank,
    ordered.validator,
    ordered.stake::varchar as stake,
    ordered.stake::double / totals.total::double as share,
    totals.weighted::double / (totals.validators * totals.total)::double as gini,
    totals.top5::double / totals.total::double as top5_share
from ordered
cross join totals
order by ordered.rank
