-- Exact sums of uint256. DuckDB has no such type, sum(uhugeint) becomes a double without a word, and BIGNUM is slow.
--
-- A value is a struct of four limbs {l0, l1, l2, l3}: l0 + l1 * 2^64 + l2 * 2^128 + l3 * 2^192, each a hugeint. In carried
-- form l0, l1 and l2 lie in [0, 2^64) and l3 has the sign, so that structs (l3 first) sort as the numbers do. A sum of up to
-- 2^62 words fits; a sum beyond that is an error of DuckDB's, never a wrong number.

-- One 64-bit limb of a 32-byte big-endian word; 0 is the lowest.
create macro u256_limb(word, place) as array_slice(word, 25 - 8 * place, 32 - 8 * place)::bit::ubigint::hugeint;

-- The value with every limb but the highest in [0, 2^64). Shifts of a negative hugeint round down, so signs carry rightly.
create macro u256_carry(l0, l1, l2, l3) as {
    'l3': l3 + ((l2 + ((l1 + (l0 >> 64)) >> 64)) >> 64),
    'l2': (l2 + ((l1 + (l0 >> 64)) >> 64)) & 18446744073709551615::hugeint,
    'l1': (l1 + (l0 >> 64)) & 18446744073709551615::hugeint,
    'l0': l0 & 18446744073709551615::hugeint
};

-- Whether a value in carried form is above zero.
create macro u256_is_positive(v) as v.l3 >= 0 and v <> {'l3': 0::hugeint, 'l2': 0::hugeint, 'l1': 0::hugeint, 'l0': 0::hugeint};

-- A BIGNUM times 2^64: doubled 64 times, because BIGNUM adds exactly and multiplies through double. The list repeats the
-- value, because a lambda would evaluate its expression 65 times, and three nested calls 65^3 times.
create macro bignum_shift_64(v) as list_reduce(repeat([v], 65), (x, y) -> x + x);

-- A value in carried form as decimal text. Values within 127 bits, nearly all, need no BIGNUM.
create macro u256_text(v) as
    case
        when v.l3 = 0 and v.l2 = 0 and v.l1 < 9223372036854775808::hugeint
            then (v.l1 * 18446744073709551616::hugeint + v.l0)::varchar
        when v.l3 = -1 and v.l2 = 18446744073709551615::hugeint and v.l1 > 9223372036854775808::hugeint
            then ((v.l1 - 18446744073709551616::hugeint) * 18446744073709551616::hugeint + v.l0)::varchar
        else (
            bignum_shift_64(
                bignum_shift_64(bignum_shift_64(v.l3::varchar::bignum) + v.l2::varchar::bignum) + v.l1::varchar::bignum
            ) + v.l0::varchar::bignum
        )::varchar
    end;
