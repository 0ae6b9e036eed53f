// The datasets as the page uses them, from the answer of GET /v1/datasets.

/**
 * Return datasets as `{name, schema, key, short, chain, chainName, dataset, isDerived, columns, from, to, first,
 * last, hotFrom, gaps, missing, rows, bytes, lastBlockAge, heads}`. Blocks are null if there are none; `to` and the ends
 * of gaps are exclusive; `heads` are those of the chain.
 */
export function datasetsOf(answer) {
  const chains = new Map((answer.chains ?? []).map((chain) => [chain.chain_id, chain]));
  return (answer.datasets ?? []).map((each) => dataset(each, chains.get(each.chain_id)));
}

function dataset(each, chain) {
  const coverage = each.coverage ?? {};
  const [schema, key] = each.name.split(".");
  return {
    name: each.name,
    schema,
    key,
    short: each.short_name ?? null,
    chain: each.chain_id,
    chainName: chain?.name ?? null,
    dataset: each.dataset ?? null,
    isDerived: each.kind === "derived",
    columns: each.columns ?? [],
    from: coverage.wanted_from ?? null,
    to: coverage.wanted_to ?? null,
    first: coverage.first_block ?? null,
    last: coverage.last_block ?? null,
    hotFrom: coverage.hot_from ?? null,
    gaps: coverage.gaps ?? [],
    missing: coverage.missing_blocks ?? 0,
    rows: each.rows ?? null,
    bytes: each.bytes ?? null,
    lastBlockAge: each.freshness?.age_seconds ?? null,
    heads: chain?.heads ?? [],
  };
}
