"""Random SQL from a grammar: most of it runs, some of it asks for what no query may have, some of it is broken.

The grammar has what analysts write (joins, CTEs, windows, PIVOT, lists, lambdas) and puts forbidden names, odd
identifiers and hostile values where a table, a function or a value may stand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

Columns = Sequence[tuple[str, str]]
"""``(name, DuckDB type)``."""

_FORBIDDEN_TABLES = (
    "read_parquet('{object}')", "'{object}'", '"{object}"', "read_text('{file}')", "read_csv('{file}')", "'{file}'",
    "glob('/etc/*')", "read_blob('{file}')", "duckdb_secrets()", "duckdb_settings()", "pg_catalog.pg_class",
    "sqlite_master", "duckdb_tables()", "parquet_metadata('{object}')", "read_json('{listener}/x')",
    "'{listener}/x.parquet'", "pragma_table_info('blocks')", "query('select 1')", "query_table('blocks')",
    "which_secret('{object}', 's3')", "read_parquet('s3://{bucket}/x?s3_endpoint={listener}')", "postgres_scan('', '')",
    "chain_999.secret_rows", "secret_rows", "information_schema.schemata", "system.information_schema.tables",
    "iceberg_scan('{object}')", "sniff_csv('{file}')", "from_substrait('x')", "checkpoint()", "force_checkpoint()",
)  # fmt: skip
_FORBIDDEN_CALLS = (
    "getenv('AWS_SECRET_ACCESS_KEY')", "current_setting('s3_secret_access_key')", "getvariable('files_1')",
    "write_log('x')", "pg_sleep(5)", "sleep_ms(5000)", "nextval('s')", "currval('s')", "txid_current()",
    "current_setting('memory_limit')", "in_search_path('a', 'b')", "current_query()", "add_parquet_key('a', 'b')",
    "json_execute_serialized_sql('x')", "test_all_types()", "md5_number_lower(current_setting('temp_directory'))",
)  # fmt: skip
_FORBIDDEN_STATEMENTS = (
    "attach '{file}' as x", "copy (select 1) to '{file}'", "copy blocks to 's3://{bucket}/stolen.parquet'",
    "install httpfs", "load '{file}'", "set memory_limit = '100GB'", "reset lock_configuration", "pragma database_list",
    "create table x as select 1", "drop view blocks", "insert into blocks select * from blocks", "export database 'x'",
    "call duckdb_settings()", "use chain_20143", "vacuum", "begin", "prepare x as select 1", "detach main",
    "create secret (type s3)", "create macro f() as 1", "set variable files_1 = []",
    "explain analyze copy (select 1) to 'x'",
)  # fmt: skip
_VALUES = (
    "null", "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "170141183460469231731687303715884105727",
    "340282366920938463463374607431768211455", "1e308", "-0.0", "'nan'::double", "'inf'::double",
    "1.5::decimal(38, 10)",
    "''", "'a'", "'0x'", "'0xddf2'", "'\U0001f600'", "unhex('00ff')", "date '2024-01-01'", "interval 1 month",
    "timestamptz '2024-01-01 00:00:00+02'", "true", "[1, null, 3]", "{{'a': 1, 'b': [2]}}", "map {{'k': 1}}",
    "'5f8'::uuid", "x'ff'", "'2024-02-30'::date", "123456789012345678901234567890::bignum", "'101'::bit",
    "repeat('ab', 1000)", "range(10)", "'select 1'", "';--'", "time '12:00'", "infinity", "$1", "?",
)  # fmt: skip
_CALLS = (
    "abs({0})", "coalesce({0}, {1})", "length({0}::varchar)", "upper({0}::varchar)", "round({0}::double, 2)",
    "hex({0}::varchar::blob)", "list_transform([{0}, {1}], x -> x)", "case when {0} is null then {1} else {0} end",
    "({0}) = ({1})", "({0}) in ({1}, {1})", "typeof({0})", "cast({0} as varchar)", "try_cast({0} as bigint)",
    "date_trunc('hour', {0}::varchar::timestamp)", "array_slice({0}::varchar::blob, 1, 4)", "hash({0})",
    "not ({0}) is null",
    "struct_pack(a := {0})", "json_extract({0}::varchar, '$.a')", "regexp_matches({0}::varchar, '(a+)+$')",
    "levenshtein({0}::varchar, {1}::varchar)", "list_sort([{0}])", "unnest([{0}, {1}])", "greatest({0}, {1})",
    "format('{{}}', {0})", "printf('%s', {0}::varchar)", "md5({0}::varchar)", "{0} || {1}", "{0} + {1}", "{0} / {1}",
    "{0}::bignum", "[{0}][1]", "(select {0})", "exists (select {0})", "{0} between {1} and {0}", "{0} ->> '$.a'",
)  # fmt: skip
_NAMES = ("a", "b", "c", "é", "\u212a", "select", "<img>", "a b")
_AGGREGATES = (
    "count(*)", "count(distinct {0})", "min({0})", "max({0})", "sum(try_cast({0} as bigint))", "list({0})", "mode({0})",
    "first({0})", "approx_count_distinct({0})", "string_agg({0}::varchar, ',')", "histogram({0}::varchar)",
    "arg_max({0}, {0})", "quantile_cont(try_cast({0} as double), 0.5)", "bool_or({0} is null)", "any_value({0})",
    "count(*) filter (where {0} is not null)", "max({0}) filter ({0} is null)", "sum(1) over ()",
)  # fmt: skip
_WINDOWS = (
    "row_number() over (order by {0})", "lag({0}) over (order by {0})", "rank() over (partition by {0} order by {1})",
    "sum(1) over (order by {0} rows between 2 preceding and current row)", "ntile(4) over (order by {0})",
)  # fmt: skip


class Grammar:
    """Makes statements over some relations. The same seed makes the same ones."""

    def __init__(self, relations: Mapping[str, Columns], places: Mapping[str, str], seed: int, hostile: float) -> None:
        """``places`` are the texts of ``{object}``, ``{file}``, ``{bucket}`` and ``{listener}``; ``hostile`` is the
        chance of a forbidden name wherever a name may stand.
        """
        self._relations = relations
        self._places = places
        self._pick = random.Random(seed)
        self._hostile = hostile
        self._depth = 0

    def statement(self) -> str:
        """Return one statement."""
        if self._chance(self._hostile / 4):
            return self._placed(self._pick.choice(_FORBIDDEN_STATEMENTS))
        text = self._query()
        wrap = self._pick.random()
        if wrap < 0.04:
            text = f"{self._pick.choice(('explain', 'describe', 'summarize', 'explain analyze'))} {text}"
        elif wrap < 0.06:
            text = f"pivot ({text}) on {self._name(text)} using count(*)"
        elif wrap < 0.08:
            text = f"{text}; {self._query()}"
        return self._broken(text) if self._chance(0.05) else text

    def _query(self) -> str:
        self._depth += 1
        try:
            if self._depth > 4 or self._chance(0.6):
                return self._select()
            return self._pick.choice((self._with, self._set, self._recursive, self._lateral, self._from_first))()
        finally:
            self._depth -= 1

    def _select(self) -> str:
        table, columns = self._source()
        kind = self._pick.random()
        if kind < 0.3:
            keys = [self._pick.choice(columns) for _ in range(self._pick.randint(1, 2))]
            made = [self._filled(self._pick.choice(_AGGREGATES), columns) for _ in range(self._pick.randint(1, 3))]
            shown = ", ".join([*keys, *made])
            tail = "group by all" + (f" having {self._condition(columns)}" if self._chance(0.2) else "")
        else:
            shown = ", ".join(self._shown(columns) for _ in range(self._pick.randint(1, 4)))
            tail = f"qualify {self._filled(_WINDOWS[0], columns)} < 9" if self._chance(0.05) else ""
        where = f" where {self._condition(columns)}" if self._chance(0.5) else ""
        order = self._pick.choice(("", "", " order by all", " order by 1 desc nulls last"))
        limit = self._pick.choice(
            ("", f" limit {self._pick.choice((0, 1, 10, 10**18))}", " limit 5 offset 2", " limit 10%")
        )
        return f"select {self._pick.choice(('', '', 'distinct '))}{shown} from {table}{where} {tail}{order}{limit}"

    def _shown(self, columns: Sequence[str]) -> str:
        kind = self._pick.random()
        if kind < 0.1:
            return self._pick.choice(
                ("*", "* exclude (block_number)", "columns('block.*')", "* replace (1 as chain_id)")
            )
        if kind < 0.2:
            return self._filled(self._pick.choice(_WINDOWS), columns)
        return f'{self._value(columns)} as "{self._pick.choice(_NAMES)}"'

    def _source(self) -> tuple[str, list[str]]:
        if self._chance(self._hostile):
            return self._placed(self._pick.choice(_FORBIDDEN_TABLES)), ["a", "1"]
        kind = self._pick.random()
        if kind < 0.12:
            return f"({self._query()}) q", ["1"]
        if kind < 0.18:
            return "(values (1, 'x'), (2, null)) v(a, b)", ["a", "b"]
        if kind < 0.22:
            return f"range({self._pick.choice((10, 1000, 10**7))}) r(i)", ["i"]
        name, columns = self._relation()
        if kind < 0.4:
            other, more = self._relation()
            how = self._pick.choice(
                ("join", "left join", "full join", "semi join", "anti join", "asof join", "positional join")
            )
            on = " using (block_number)" if how != "positional join" else ""
            shared = ["block_number"] if how in ("semi join", "anti join") else ["block_number", *more[:1]]
            return f"(select * from {name} limit 50) l {how} (select * from {other} limit 50) r{on}", shared
        sample = " tablesample 10%" if self._chance(0.05) else ""
        return f"{self._odd_case(name)}{sample}", columns

    def _with(self) -> str:
        name = self._pick.choice(("q", "blocks", "logs", '"/etc/passwd"', '"\u212aeys"', "secret_rows"))
        how = self._pick.choice(("", "materialized ", "not materialized "))
        return f"with {name} as {how}({self._query()}) select * from {name} limit 20"

    def _recursive(self) -> str:
        most = self._pick.choice((5, 100, 10**9))
        return f"with recursive r(i) as (select 1 union all select i + 1 from r where i < {most}) select max(i) from r"

    def _set(self) -> str:
        how = self._pick.choice(("union all", "union", "except", "intersect", "union by name"))
        return f"(select block_number from {self._relation()[0]} limit 9) {how} ({self._query()})"

    def _lateral(self) -> str:
        name, columns = self._relation()
        inner = f"select {self._value([f't.{each}' for each in columns])} as z"
        return f"select * from (select * from {name} limit 9) t, lateral ({inner}) s"

    def _from_first(self) -> str:
        return f"from {self._relation()[0]} limit 3"

    def _condition(self, columns: Sequence[str]) -> str:
        one = f"{self._value(columns)} {self._pick.choice(('=', '<', '>=', '<>', 'is distinct from', 'like', 'in'))} "
        one += f"({self._value(columns)})" if self._chance(0.8) else f"({self._query()})"
        return f"({one}) {self._pick.choice(('and', 'or'))} block_number >= 0" if self._chance(0.3) else one

    def _value(self, columns: Sequence[str]) -> str:
        self._depth += 1
        try:
            if self._chance(self._hostile / 2):
                return self._pick.choice(_FORBIDDEN_CALLS)
            kind = self._pick.random()
            if self._depth > 7 or kind < 0.55:
                return self._pick.choice(list(columns))
            if kind < 0.7:
                return self._pick.choice(_VALUES).replace("{{", "{").replace("}}", "}")
            return self._filled(self._pick.choice(_CALLS), columns)
        finally:
            self._depth -= 1

    def _filled(self, form: str, columns: Sequence[str]) -> str:
        return form.format(self._value(columns), self._value(columns))

    def _relation(self) -> tuple[str, list[str]]:
        name = self._pick.choice(sorted(self._relations))
        return name, [column for column, _ in self._relations[name]]

    def _name(self, text: str) -> str:
        return self._pick.choice(("block_number", "a", "1", "all", text[7:20] or "a"))

    def _odd_case(self, name: str) -> str:
        forms: tuple[Callable[[str], str], ...] = (
            str.upper,
            lambda text: f"main.{text}",
            lambda text: f"/*x*/{text}--\n",
        )
        return self._pick.choice(forms)(name) if self._chance(0.1) else name

    def _broken(self, text: str) -> str:
        start = self._pick.randrange(len(text))
        end = min(len(text), start + self._pick.randint(0, 9))
        return (
            text[:start]
            + self._pick.choice(("", "(", ")" * 50, "\x00", "'", '"', "--", "/*", "\u202e", "; drop"))
            + text[end:]
        )

    def _placed(self, text: str) -> str:
        for place, value in self._places.items():
            text = text.replace(f"{{{place}}}", value)
        return text

    def _chance(self, share: float) -> bool:
        return self._pick.random() < share
