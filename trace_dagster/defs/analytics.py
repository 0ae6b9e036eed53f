"""Analytics templates as assets downstream of the streams that they read."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetsDefinition, Config, MetadataValue, asset

from trace_dagster.analytics.derived import Derived
from trace_dagster.analytics.templates import Template, templates
from trace_dagster.datasets.chain import ChainContracts
from trace_dagster.datasets.chains import contracts_of
from trace_dagster.defs.streams import IO_MANAGER, RUNTIME, asset_key
from trace_dagster.messages.printable import plain_markdown
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLES = 40
_DEFAULT_TOP = 10


class Erc20Config(Config):
    """Run config of the token analytics; an empty address means the chain's well-known token."""

    token: str = ""


class TopHoldersConfig(Erc20Config):
    """Run config of top holders; ``step`` 0 means about 40 samples over the window."""

    top_n: int = _DEFAULT_TOP
    step: int = 0


class StakingConfig(Config):
    """Run config of the staking analytics; an empty address means the chain's staking contract."""

    staking: str = ""


def analytics_assets(streams: list[StreamRow]) -> Iterator[AssetsDefinition]:
    """Yield the analytics assets of every chain whose logs are synced and whose contracts are known."""
    for stream in _logs_of_each_chain(streams):
        contracts = contracts_of(stream.chain_id)
        if contracts is not None:
            yield _supply(stream, contracts)
            yield _holders(stream, contracts)
            if contracts.staking:
                yield _staking(stream, contracts.staking)


def _logs_of_each_chain(streams: list[StreamRow]) -> Iterator[StreamRow]:
    """Yield one logs stream per chain, preferably the one called ``logs``: analytics are per chain, not per job."""
    logs = [stream for stream in streams if stream.dataset.name == "logs"]
    chosen: dict[int, StreamRow] = {}
    for stream in sorted(logs, key=lambda stream: (stream.dataset_key != "logs", stream.dataset_key)):
        chosen.setdefault(stream.chain_id, stream)
    yield from chosen.values()


def analytics_job_name(chain_id: int) -> str:
    """Return the name of the job that materializes all analytics of a chain."""
    return f"analytics__{chain_id}"


def _supply(stream: StreamRow, contracts: ChainContracts) -> AssetsDefinition:
    template = templates()["erc20_total_supply_by_block"]

    @asset(**_common(stream, template))
    def supply(context: AssetExecutionContext, config: Erc20Config) -> Derived:
        return _derive(context, template, stream.chain_id, {"token": (config.token or contracts.token).lower()})

    return supply


def _holders(stream: StreamRow, contracts: ChainContracts) -> AssetsDefinition:
    template = templates()["erc20_top_holders"]

    @asset(**_common(stream, template))
    def holders(context: AssetExecutionContext, config: TopHoldersConfig) -> Derived:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        covered = runtime.catalog.committed_ranges(stream.dataset_uuid)
        step = config.step or max(1, max(map(len, covered), default=0) // SAMPLES)
        given = {"token": (config.token or contracts.token).lower(), "top_n": config.top_n, "step": step}
        return _derive(context, template, stream.chain_id, given)

    return holders


def _staking(stream: StreamRow, precompile: str) -> AssetsDefinition:
    template = templates()["staking_by_validator"]

    @asset(**_common(stream, template))
    def staking(context: AssetExecutionContext, config: StakingConfig) -> Derived:
        return _derive(context, template, stream.chain_id, {"staking": (config.staking or precompile).lower()})

    return staking


def _common(stream: StreamRow, template: Template) -> dict[str, Any]:
    return {
        "key": asset_key(stream.chain_id, template.name),
        "deps": [asset_key(stream.chain_id, stream.dataset_key)],
        "group_name": stream.job_name,
        "owners": [f"team:{stream.job_name}"],
        "kinds": {"duckdb", "sql", "parquet"},
        "description": f"{template.title}. Grain: {template.grain}.",
        "io_manager_key": IO_MANAGER,
        "required_resource_keys": {RUNTIME},
        "metadata": {
            "dagster/table_name": f"chain_{stream.chain_id}.{template.name}",
            "template": f"sql_templates/{template.name}.sql",
            "chain_id": stream.chain_id,
        },
    }


def _derive(context: AssetExecutionContext, template: Template, chain_id: int, given: Mapping[str, Any]) -> Derived:
    runtime: Runtime = getattr(context.resources, RUNTIME)
    from trace_dagster.analytics.derive import derive  # imports DuckDB, which the code location does not need

    found = derive(
        template, chain_id, given, runtime.catalog, runtime.settings.s3_for_queries, runtime.committed_objects.reading
    )
    if found.gaps:
        context.log.warning(
            f"{found.gaps} committed blocks are not counted in: holes separate them from the longest range without one,"
            f" {found.target.block_range}"
        )
    context.add_output_metadata({"preview": _preview(found.table), "parameters": found.parameters})
    return found


def _preview(table: "pa.Table", rows: int = 10) -> Any:
    head = table.slice(0, rows).to_pylist()
    lines = ["| " + " | ".join(table.column_names) + " |", "|" + "---|" * table.num_columns]
    lines += ["| " + " | ".join(plain_markdown(str(value)) for value in row.values()) + " |" for row in head]
    return MetadataValue.md("\n".join(lines))
