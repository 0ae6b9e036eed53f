"""Job files for the acceptance tests."""

JOB = """
kind: chain_sync
name: {name}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: {start}, to_block: {end}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, max_inflight: 8, compact: {compact}}}
streams:
{streams}
"""
FOUR = ("blocks", "transactions", "logs", "geth_calls")


def job_file(folder, name, *, chain, end, pool="devchain", start=0, chunk=100, streams=FOUR, suffix="", compact="off"):
    text = "\n".join(f"  {key}{suffix}: {{cryo_dataset_name: {key}}}" for key in streams)
    path = folder / f"{name}.yaml"
    given = {"name": name, "chain": chain, "start": start, "end": end, "pool": pool, "chunk": chunk}
    path.write_text(JOB.format(**given, compact=compact, streams=text))
    return path
