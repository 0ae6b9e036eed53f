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
-- A Transfer with four topics is an ERC-721's and does not count. Values are summed as four 64-bit limbs and put
-- together by doubling (x * 2^64 is 64 times x + x), because BIGNUM adds exactly and multiplies through DOUBLE.
with changes as (
    select
        block_number,
        case
            when topic0 = '\xdd\xf2\x52\xad\x1b\xe2\xc8\x9b\x69\xc2\xb0\x68\xfc\x37\x8d\xaa\x95\x2b\xa7\xf1\x63\xc4\xa1\x16\x28\xf5\x5a\x4d\xf5\x23\xb3\xef'::blob
                then array_slice(topic1, 13, 32) = '\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'::blob
            else topic0 = '\xe1\xff\xfc\xc4\x92\x3d\x04\xb5\x59\xf4\xd2\x9a\x8b\xfc\x6c\xda\x04\xeb\x5b\x0d\x3c\x46\x07\x51\xc2\x40\x2c\x5c\x5c\xc9\x10\x9c'::blob
        end as is_mint,
        case
            when topic0 = '\xdd\xf2\x52\xad\x1b\xe2\xc8\x9b\x69\xc2\xb0\x68\xfc\x37\x8d\xaa\x95\x2b\xa7\xf1\x63\xc4\xa1\x16\x28\xf5\x5a\x4d\xf5\x23\xb3\xef'::blob
                then array_slice(topic2, 13, 32) = '\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'::blob
            else topic0 = '\x7f\xcf\x53\x2c\x15\xf0\xa6\xdb\x0b\xd6\xd0\xe0\x38\xbe\xa7\x1d\x30\xd8\x08\xc7\xd9\x8c\xb3\xbf\x72\x68\xa9\x5b\xf5\x08\x1b\x65'::blob
        end as is_burn,
        array_slice(data, 25, 32)::bit::ubigint::hugeint as limb0,
        array_slice(data, 17, 24)::bit::ubigint::hugeint as limb1,
        array_slice(data, 9, 16)::bit::ubigint::hugeint as limb2,
        array_slice(data, 1, 8)::bit::ubigint::hugeint as limb3
    from logs
    where address = $token
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
sides as (
    select block_number, true as is_mint, limb0, limb1, limb2, limb3 from changes where is_mint
    union all
    select block_number, false as is_mint, limb0, limb1, limb2, limb3 from changes where is_burn
),
sums as (
    select
        block_number, is_mint,
        sum(limb0) as limb0, sum(limb1) as limb1, sum(limb2) as limb2, sum(limb3) as limb3
    from sides
    group by block_number, is_mint
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
        block_number, is_mint,
        list_reduce(list_transform(range(65), i -> middle), (x, y) -> x + x) + limb0::varchar::bignum as amount
    from step1
),
blocks_changed as (
    select
        block_number,
        coalesce(sum(amount) filter (where is_mint), '0'::bignum) as minted,
        coalesce(sum(amount) filter (where not is_mint), '0'::bignum) as burned
    from amounts
    group by block_number
)
select
    block_number,
    minted::varchar as minted,
    burned::varchar as burned,
    sum(minted - burned) over (order by block_number)::varchar as total_supply
from blocks_changed
order by block_number
