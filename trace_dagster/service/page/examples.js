// Queries to begin with. `needs` are kinds of datasets; {logs} and the like become the names of this lake's datasets.
// Each one reads the newest blocks only, so that it is quick on a large chain as well.
import { sqlName } from "./completion.js";

const NEWEST = (blocks) => `block_number > (select max(block_number) from {blocks}) - ${blocks}`;

const EXAMPLES = [
  {
    title: "Newest blocks",
    needs: ["blocks"],
    sql: `select block_number, block_timestamp, gas_used, base_fee_per_gas, block_hash
from {blocks}
where ${NEWEST(100)}
order by block_number desc`,
  },
  {
    title: "Gas over time",
    needs: ["blocks"],
    chart: { x: "minute", y: "gas_used", kind: "line" },
    sql: `select
  date_trunc('minute', block_timestamp) as minute,
  count(*) as blocks,
  sum(gas_used) as gas_used
from {blocks}
where ${NEWEST(10_000)}
group by minute
order by minute`,
  },
  {
    title: "Contracts with the most logs",
    needs: ["blocks", "logs"],
    chart: { x: "contract", y: "logs", kind: "bar" },
    sql: `select
  address as contract,
  count(*) as logs,
  count(distinct transaction_hash) as transactions
from {logs}
where ${NEWEST(10_000)}
group by contract
order by logs desc
limit 20`,
  },
  {
    title: "ERC-20 transfers",
    needs: ["blocks", "logs"],
    sql: `-- topic0 is the hash of Transfer(address,address,uint256)
select
  block_number,
  address as token,
  array_slice(topic1, 13, 32) as sender,
  array_slice(topic2, 13, 32) as receiver,
  array_slice(data, 17, 32)::bit::hugeint as amount
from {logs}
where ${NEWEST(10_000)}
  and topic0 = '0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef'
  and topic3 is null
order by block_number desc, log_index desc`,
  },
  {
    title: "Share of failed transactions",
    needs: ["blocks", "transactions"],
    chart: { x: "first_block", y: "failed_percent", kind: "bar" },
    sql: `select
  block_number // 100 * 100 as first_block,
  count(*) as sent,
  count(*) filter (not success) as failed,
  round(100.0 * failed / sent, 2) as failed_percent
from {transactions}
where ${NEWEST(10_000)}
group by first_block
order by first_block`,
  },
  {
    title: "Ether sent, by sender",
    needs: ["blocks", "transactions"],
    chart: { x: "sender", y: "wei", kind: "bar" },
    sql: `-- the lower half of a uint256 as a number: exact for every amount of ether
select
  from_address as sender,
  count(*) as transactions,
  sum(array_slice(value_binary, 17, 32)::bit::hugeint) as wei
from {transactions}
where ${NEWEST(10_000)} and success
group by sender
order by wei desc
limit 20`,
  },
  {
    title: "Calls by type",
    needs: ["blocks", "geth_calls"],
    chart: { x: "call_type", y: "calls", kind: "bar" },
    sql: `select typ as call_type, count(*) as calls, count(error) as failed
from {geth_calls}
where ${NEWEST(10_000)}
group by call_type
order by calls desc`,
  },
  {
    title: "Transactions and logs of each block",
    needs: ["blocks", "transactions", "logs"],
    chart: { x: "block_number", y: "logs", kind: "line" },
    sql: `with
  t as (select block_number, count(*) as transactions from {transactions} where ${NEWEST(500)} group by all),
  l as (select block_number, count(*) as logs from {logs} where ${NEWEST(500)} group by all)
select
  b.block_number,
  coalesce(t.transactions, 0) as transactions,
  coalesce(l.logs, 0) as logs
from {blocks} b
left join t using (block_number)
left join l using (block_number)
where b.${NEWEST(500)}
order by b.block_number`,
  },
  {
    title: "What the columns of a dataset hold",
    needs: ["blocks", "transactions"],
    sql: `summarize select * from {transactions}
where ${NEWEST(1000)}`,
  },
];

/** Return the examples of which one chain has rows of each dataset, with the names of these. */
export function examplesFor(datasets) {
  const withRows = datasets.filter(({ last }) => last !== null);
  const found = EXAMPLES.map((example) => filled(example, withRows));
  return found.filter((example) => example !== null);
}

function filled(example, datasets) {
  for (const chain of new Set(datasets.map((each) => each.chain))) {
    const used = example.needs.map((kind) => datasets.find((each) => each.chain === chain && each.dataset === kind));
    if (used.includes(undefined)) continue;
    const names = new Map(used.map((each) => [each.dataset, sqlName(each)]));
    return { ...example, sql: example.sql.replace(/\{(\w+)\}/g, (_, kind) => names.get(kind)) };
  }
  return null;
}
