"""Settings: one frozen tree of checked values, read from the environment when a process starts.

Each field names its variable (the alias), its type and bounds, its default, and a one-line description;
``variables.py`` makes the table in docs/operations.md of them. Only entry points read the environment. They pass the
tree, or the part that a component needs, to everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypedDict
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from trace_dagster.config.home_folder import DEFAULT_HOME
from trace_dagster.config.rpc_pools import POOL_VARIABLE, PoolVariables, pool_of, split_urls, url_list, websocket_urls
from trace_dagster.config.rules import (
    choice,
    database_url,
    gateway_token,
    host_names,
    hours,
    http_url,
    password,
    query_token,
    whole,
)
from trace_dagster.errors import InvalidInput
from trace_dagster.messages.logs import FORMATS, LEVELS
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.store.access import DEFAULT_REGION, S3Access
from trace_dagster.store.caps import Caps
from trace_dagster.store.credentials import profile_region

DEFAULT_BUCKET = "trace-lake"
DEFAULT_CHANGES_DAYS = 30
DEFAULT_QUERY_LOG_DAYS = 30
DEVCHAIN_BLOCKS = 4100
"""A little more than examples/devchain.yaml syncs, so that all of its blocks are final."""

GATEWAY_MODES = ("auto", "always", "never")
ENGINE_MODES = ("real", "fake")
_INTERNAL = {"internal": True}
"""Marks a variable that our own processes pass to each other; the table leaves it out."""

_CAPS = Caps()
_MOST = 2**62 - 1
_S3_URL = "http://127.0.0.1:9000"
_SQS_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/name"

Positive = Annotated[int, BeforeValidator(whole(1, _MOST, "must be a positive whole number"))]
UpToAMillion = Annotated[int, BeforeValidator(whole(0, 1_000_000, "must be a whole number up to 1000000"))]
Days = Annotated[int, BeforeValidator(whole(1, 36_500, "must be a number of days from 1 to 36500"))]
Port = Annotated[int, BeforeValidator(whole(1, 65_535, "must be a port from 1 to 65535"))]
S3Port = Annotated[int, BeforeValidator(whole(1, 55_535, "must be a port from 1 to 55535"))]
"""SeaweedFS also listens on the port + 10000."""

CacheBytes = Annotated[int, BeforeValidator(whole(0, 10**12 - 1, "must be a number of bytes, 0 to keep nothing"))]
NodeUrl = Annotated[SecretStr, BeforeValidator(http_url("http://127.0.0.1:8545", with_user=True))]
QueueUrl = Annotated[SecretStr, BeforeValidator(http_url(_SQS_URL))]


class _Group(BaseModel):
    """Settings of one component. Reprs and errors never show an input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RegistrySettings(_Group):
    """The registry's database."""

    postgres_url: Annotated[SecretStr, BeforeValidator(database_url)] | None = Field(
        None, alias="TRACE_POSTGRES_URL", description="your Postgres: `up` then starts none"
    )
    changes_days: Days = Field(
        DEFAULT_CHANGES_DAYS,
        alias="TRACE_CHANGES_DAYS",
        description="how long entries of [the change log](changes.md) and reorganisations are kept, in days (30)",
    )


class ObjectStoreSettings(_Group):
    """The bucket and its server."""

    endpoint: Annotated[str, BeforeValidator(http_url(_S3_URL))] | None = Field(
        None,
        alias="TRACE_S3_ENDPOINT",
        description="your object store: `up` then starts none; AWS S3 if neither it nor a stack is there",
        repr=False,
    )
    bucket: str = Field(DEFAULT_BUCKET, alias="TRACE_S3_BUCKET", description="the bucket")
    access_key: SecretStr | None = Field(
        None,
        alias="AWS_ACCESS_KEY_ID",
        description="key of the object store; without it boto3's default chain: profile, web identity, role",
    )
    secret_key: SecretStr | None = Field(
        None, alias="AWS_SECRET_ACCESS_KEY", description="secret of `AWS_ACCESS_KEY_ID`"
    )
    session_token: SecretStr | None = Field(
        None, alias="AWS_SESSION_TOKEN", description="session token of `AWS_ACCESS_KEY_ID`, if it is a temporary key"
    )
    query_access_key: SecretStr | None = Field(
        None,
        alias="TRACE_S3_QUERY_ACCESS_KEY_ID",
        description="a key that may only list and read: SQL queries use it, so that no query could write",
    )
    query_secret_key: SecretStr | None = Field(
        None, alias="TRACE_S3_QUERY_SECRET_ACCESS_KEY", description="secret of `TRACE_S3_QUERY_ACCESS_KEY_ID`"
    )
    profile: str | None = Field(
        None, alias="AWS_PROFILE", description="profile of `~/.aws` with the credentials, if no key is set"
    )
    region: str | None = Field(
        None, alias="AWS_REGION", description="region of the object store and of SQS (us-east-1)"
    )
    default_region: str | None = Field(
        None, alias="AWS_DEFAULT_REGION", description="the region if `AWS_REGION` is not set"
    )

    @property
    def is_set(self) -> bool:
        """Whether anything names the object store or its credentials."""
        named = (self.endpoint, self.access_key, self.secret_key, self.profile)
        return self.bucket != DEFAULT_BUCKET or any(value is not None for value in named)


class QueueSettings(_Group):
    """SQS queues for wake-ups; without them a table of the registry is the queue."""

    url: QueueUrl | None = Field(
        None,
        alias="TRACE_SQS_QUEUE_URL",
        description="a standard SQS queue for wake-ups; without it a table of the registry",
    )
    dead_url: QueueUrl | None = Field(
        None,
        alias="TRACE_SQS_DEAD_QUEUE_URL",
        description="the standard SQS queue for dead messages; set both or neither",
    )
    endpoint: Annotated[SecretStr, BeforeValidator(http_url("http://127.0.0.1:9324"))] | None = Field(
        None, alias="TRACE_SQS_ENDPOINT", description="where the queues are if not at AWS"
    )
    access_key: SecretStr | None = Field(
        None, alias="TRACE_SQS_ACCESS_KEY_ID", description="key of the queues if not the object store's"
    )
    secret_key: SecretStr | None = Field(
        None, alias="TRACE_SQS_SECRET_ACCESS_KEY", description="secret of `TRACE_SQS_ACCESS_KEY_ID`"
    )


class RangeSettings(_Group):
    """How block ranges are leased, retried, grouped into runs, and limited in size."""

    lease_ttl_seconds: Positive = Field(60, alias="TRACE_LEASE_TTL_SECONDS", description="lease lifetime (60)")
    max_attempts: Positive = Field(3, alias="TRACE_MAX_ATTEMPTS", description="attempts per range (3)")
    retry_base_seconds: Positive = Field(
        5, alias="TRACE_RETRY_BASE_SECONDS", description="first wait between attempts (5), doubled each time"
    )
    ranges_per_run: Positive | None = Field(
        None,
        alias="TRACE_RANGES_PER_RUN",
        description="block ranges of one Dagster run; without it as many as take ten minutes, up to 1,000",
    )
    files_per_range: Positive = Field(
        _CAPS.files_per_range, alias="MAX_PARQUET_FILES_PER_RANGE", description="cap: files of one range (256)"
    )
    bytes_per_file: Positive = Field(
        _CAPS.bytes_per_file, alias="MAX_PARQUET_BYTES_PER_FILE", description="cap: bytes of one file (512 MiB)"
    )
    bytes_per_range: Positive = Field(
        _CAPS.bytes_per_range, alias="MAX_TOTAL_PARQUET_BYTES_PER_RANGE", description="cap: bytes of one range (2 GiB)"
    )


class EngineChoice(TypedDict):
    """Which engine to make; a value of this layer, because importing the engine's package costs time."""

    mode: str
    binary: Path | None
    variable: str
    """The variable that names the binary."""
    staging: Path | None
    ttl_hours: float


class EngineSettings(_Group):
    """The extraction engine."""

    mode: Annotated[str, BeforeValidator(choice(ENGINE_MODES, "must be real or fake"))] = Field(
        "real", alias="TRACE_CRYO_MODE", description="`real` (default) or `fake` (a made-up chain, for tests)"
    )
    binary: Path | None = Field(
        None, alias="TRACE_CRYO_BIN", description="a Cryo binary to run instead of the embedded engine"
    )
    binary_fallback: Path | None = Field(
        None, alias="CRYO_BIN", description="the Cryo binary if `TRACE_CRYO_BIN` is not set"
    )
    staging: Path | None = Field(
        None,
        alias="TRACE_STAGING_DIR",
        description="the folder in which a binary stages (`trace/cryo` in the temporary folder)",
    )
    staging_ttl_hours: Annotated[float, BeforeValidator(hours)] = Field(
        24.0,
        alias="TRACE_CRYO_STAGING_TTL_HOURS",
        description="age at which a binary's leftovers are deleted, in hours (24)",
    )
    compiled_proof: Path | None = Field(
        None,
        alias="NUMBA_CACHE_DIR",
        description="where compiled proofs are kept; else next to the source or in the user's cache (read by numba)",
    )

    @property
    def selection(self) -> EngineChoice:
        """The arguments of :func:`trace_dagster.engine.select.selected_engine`."""
        variable = "TRACE_CRYO_BIN" if self.binary else "CRYO_BIN"
        return {
            "mode": self.mode,
            "binary": self.binary or self.binary_fallback,
            "variable": variable,
            "staging": self.staging,
            "ttl_hours": self.staging_ttl_hours,
        }


class RpcSettings(_Group):
    """RPC pools by name. A pool's name is a part of its variables' names."""

    named: dict[str, PoolVariables] = Field(default_factory=dict, alias="TRACE_RPC_POOL_<NAME>_URL", repr=False)
    fallback: Annotated[SecretStr, BeforeValidator(url_list)] | None = Field(
        None, alias="TRACE_CRYO_RPC_URL", description="endpoint of any pool that has no URL"
    )

    @cached_property
    def pools(self) -> dict[str, RpcPool]:
        """Every pool that has URLs, by name. Raises InvalidInput for a wrong URL or quorum."""
        return {name: pool_of(name, each, each.url) for name, each in self.named.items() if each.url is not None}

    @property
    def fallback_pool(self) -> RpcPool | None:
        """The endpoints of pools that have no URL, under a name of their own; None if there are none."""
        return None if self.fallback is None else pool_of("fallback", PoolVariables(), self.fallback)

    @property
    def names(self) -> list[str]:
        """The names of the pools that have a variable. They are no secrets, even if a URL contains them."""
        return sorted(self.named)

    def pool(self, name: str) -> RpcPool:
        """Return the pool called ``name``; without URLs of its own it has the fallback's.

        Raises InvalidInput, with the name of the variable to set, if neither is set.
        """
        if name in self.pools:
            return self.pools[name]
        if self.fallback is not None:
            return pool_of(name, self.named.get(name, PoolVariables()), self.fallback)
        raise InvalidInput(
            f"rpc pool {name!r} has no URL: set TRACE_RPC_POOL_{name.upper()}_URL and restart `trace-lite up` with it",
            known=",".join(sorted(self.pools)) or "none",
        )


class GatewaySettings(_Group):
    """The RPC gateway: when it is used, where it is, and what `python -m trace_dagster.gateway` needs."""

    mode: Annotated[str, BeforeValidator(choice(GATEWAY_MODES))] = Field(
        "auto",
        alias="TRACE_RPC_GATEWAY",
        description="`auto` (default: limited and far endpoints are called through the gateway), `always`, `never`",
    )
    url: Annotated[SecretStr, BeforeValidator(http_url("http://127.0.0.1:8546/TOKEN"))] | None = Field(
        None,
        alias="TRACE_RPC_GATEWAY_URL",
        description="a gateway that runs already, which also has the pools that have no URL here; `up` starts one, else"
        " a process starts its own",
    )
    token: Annotated[SecretStr, BeforeValidator(gateway_token)] | None = Field(
        None,
        alias="TRACE_GATEWAY_TOKEN",
        description="of `python -m trace_dagster.gateway`: its token, 16 to 128 letters, digits, - or _ (random)",
    )
    cache_bytes: CacheBytes = Field(
        256 * 1024 * 1024,
        alias="TRACE_GATEWAY_CACHE_BYTES",
        description="of `python -m trace_dagster.gateway`: room for cached responses (256 MiB), 0 for none",
    )


class QuerySettings(_Group):
    """The query service, and how its clients reach it."""

    url: Annotated[str, BeforeValidator(http_url("http://127.0.0.1:8480"))] | None = Field(
        None,
        alias="TRACE_QUERY_URL",
        description="a [query service](service.md): clients ask it; else the running stack's",
        repr=False,
    )
    token: Annotated[SecretStr, BeforeValidator(query_token)] | None = Field(
        None, alias="TRACE_QUERY_TOKEN", description="token of `TRACE_QUERY_URL`, from `trace-lite token new`"
    )
    running: Annotated[int, BeforeValidator(whole(1, 256, "must be a number of queries from 1 to 256"))] = Field(
        4, alias="TRACE_QUERY_RUNNING", description="queries that the service runs at a time (4)"
    )
    waiting: Annotated[int, BeforeValidator(whole(0, 10_000, "must be a number of queries up to 10000"))] = Field(
        32,
        alias="TRACE_QUERY_WAITING",
        description="queries that wait for their turn (32); beyond them the answer is 429",
    )
    seconds: Annotated[int, BeforeValidator(whole(1, 3600, "must be a number of seconds from 1 to 3600"))] = Field(
        60, alias="TRACE_QUERY_SECONDS", description="longest query whose answer is JSON (60 s)"
    )
    stream_seconds: Annotated[int, BeforeValidator(whole(1, 21_600, "must be a number of seconds from 1 to 21600"))] = (
        Field(3600, alias="TRACE_QUERY_STREAM_SECONDS", description="longest Arrow, CSV or Parquet transfer (3600 s)")
    )
    memory_mib: Annotated[int, BeforeValidator(whole(64, 1_000_000, "must be a number of MiB from 64 to 1000000"))] = (
        Field(2048, alias="TRACE_QUERY_MEMORY_MIB", description="memory of one query (2048 MiB)")
    )
    temporary_mib: UpToAMillion = Field(
        4096,
        alias="TRACE_QUERY_TEMPORARY_MIB",
        description="disk that one query may sort or join on (4096 MiB), 0 for none",
    )
    threads: Annotated[int, BeforeValidator(whole(1, 256, "must be a number of threads from 1 to 256"))] = Field(
        2, alias="TRACE_QUERY_THREADS", description="threads of one query (2)"
    )
    log_days: Days = Field(
        DEFAULT_QUERY_LOG_DAYS,
        alias="TRACE_QUERY_LOG_DAYS",
        description="how long the service's log of queries is kept, in days (30)",
    )
    hosts: Annotated[str, BeforeValidator(host_names)] = Field(
        "",
        alias="TRACE_QUERY_HOSTS",
        description="names under which browsers reach the service, separated by commas, beside those of this machine",
    )


class LogSettings(_Group):
    """The process log."""

    format: Annotated[str, BeforeValidator(choice(FORMATS))] = Field(
        "text", alias="TRACE_LOG_FORMAT", description="`text` (default) or `json`: the format of process logs"
    )
    level: Annotated[str, BeforeValidator(choice(LEVELS))] | None = Field(
        None,
        alias="TRACE_LOG_LEVEL",
        description="`debug`, `info`, `warning` or `error` (`info`; `warning` in `trace-lite` commands)",
    )


class StackSettings(_Group):
    """The laptop stack."""

    home: Path = Field(DEFAULT_HOME, alias="TRACE_HOME", description="the stack's folder (`.trace`)")
    port_postgres: Port | None = Field(
        None, alias="TRACE_PORT_POSTGRES", description="fixed port of Postgres; a free one otherwise"
    )
    port_s3: S3Port | None = Field(
        None, alias="TRACE_PORT_S3", description="fixed port of the S3 server; a free one otherwise"
    )
    port_web: Port | None = Field(
        None, alias="TRACE_PORT_WEB", description="fixed port of Dagster's web server; a free one otherwise"
    )
    port_devchain: Port | None = Field(
        None, alias="TRACE_PORT_DEVCHAIN", description="fixed port of the devchain; a free one otherwise"
    )
    port_gateway: Port | None = Field(
        None, alias="TRACE_PORT_GATEWAY", description="fixed port of the rpc gateway; a free one otherwise"
    )
    port_query: Port | None = Field(
        None, alias="TRACE_PORT_QUERY", description="fixed port of the query service; a free one otherwise"
    )
    devchain_blocks: UpToAMillion = Field(
        DEVCHAIN_BLOCKS, alias="TRACE_DEVCHAIN_BLOCKS", description="length of the devchain in blocks (4100)"
    )
    devchain_block_interval_seconds: UpToAMillion = Field(
        0,
        alias="TRACE_DEVCHAIN_BLOCK_INTERVAL_SECONDS",
        description="seconds between new blocks of the devchain (0: it does not grow)",
    )
    web_url: Annotated[str, BeforeValidator(http_url("http://127.0.0.1:3000"))] | None = Field(
        None,
        alias="TRACE_WEB_URL",
        description="Dagster's web server, for `apply` without a local stack; the server answers to this host too",
        repr=False,
    )
    web_password: Annotated[SecretStr, BeforeValidator(password)] | None = Field(
        None,
        alias="TRACE_WEB_PASSWORD",
        description="password of Dagster's web server, 6 characters or more; without it the server asks for none",
    )
    stack_id: str | None = Field(
        None,
        alias="TRACE_STACK_ID",
        description="marks the processes of one stack, so that it can end them",
        json_schema_extra=_INTERNAL,  # type: ignore[arg-type]
    )

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are fixed, by variable."""
        fixed = ((str(field.alias), getattr(self, name)) for name, field in type(self).model_fields.items())
        return {variable: value for variable, value in fixed if variable.startswith("TRACE_PORT_") and value}


class ChaosSettings(_Group):
    """The nodes behind `trace-lite chaos-rpc`."""

    upstream: NodeUrl | None = Field(
        None, alias="TRACE_CHAOS_UPSTREAM", description="the node behind [`chaos-rpc`](chaos_rpc.md)"
    )
    fork_upstream: NodeUrl | None = Field(
        None, alias="TRACE_CHAOS_FORK_UPSTREAM", description="a node on a fork, for its fault `stale_fork`"
    )


class DebugSettings(_Group):
    """Settings that help to find a defect."""

    traceback: str | None = Field(
        None, alias="TRACE_DEBUG", description="`1`: show the traceback of an unexpected error"
    )


class SqsAccess(_Group):
    """How to reach the SQS queues. None for a key means the object store's."""

    queue_url: str = Field(repr=False)
    dead_queue_url: str = Field(repr=False)
    endpoint: str | None = Field(repr=False)
    access_key: str | None = Field(repr=False)
    secret_key: str | None = Field(repr=False)


class _Variables(PydanticBaseSettingsSource):
    """Fills each group from the variables that its fields name. An empty variable counts as not set."""

    def __init__(self, settings_class: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings_class)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the variables of the group ``field_name``, by alias."""
        group = field.annotation
        assert isinstance(group, type)
        assert issubclass(group, _Group)
        aliases = [str(each.alias) for each in group.model_fields.values()]
        found: dict[str, Any] = {name: self._variables[name] for name in aliases if name in self._variables}
        if group is RpcSettings:
            found["TRACE_RPC_POOL_<NAME>_URL"] = self._pools()
        return found, field_name, True

    def __call__(self) -> dict[str, Any]:
        """Return the variables that are set, by group."""
        fields = self.settings_cls.model_fields.items()
        return {name: self.get_field_value(field, name)[0] for name, field in fields}

    def _pools(self) -> dict[str, dict[str, str]]:
        pools: dict[str, dict[str, str]] = {}
        for variable, value in self._variables.items():
            if match := POOL_VARIABLE.fullmatch(variable):
                pools.setdefault(match[1].lower(), {})[match[2]] = value
        return pools


class Settings(BaseSettings):
    """Everything that a process reads from its environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    rpc: RpcSettings
    gateway: GatewaySettings
    query: QuerySettings
    registry: RegistrySettings
    object_store: ObjectStoreSettings
    queue: QueueSettings
    ranges: RangeSettings
    engine: EngineSettings
    log: LogSettings
    stack: StackSettings
    chaos: ChaosSettings
    debug: DebugSettings
    _environment: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the given mapping only, never the process's environment."""
        return (_Variables(settings_cls, init_settings.init_kwargs["environment"]),)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Check every variable. Raises InvalidInput with the name of the first that is wrong."""
        given = {name: value.strip() for name, value in environment.items() if value.strip()}
        try:
            settings = cls(environment=given)
        except ValidationError as error:
            _refuse(error)
        settings._environment = dict(environment)
        settings._require_pairs()
        settings.rpc.pools  # noqa: B018  (checks them)
        return settings

    def complete(self) -> Self:
        """Return these settings. Raises InvalidInput if they lack the registry, or one of key and secret."""
        self.postgres_url, self.s3  # noqa: B018  (they raise)
        return self

    @property
    def postgres_url(self) -> str:
        """The registry's URL; it holds the password. Raises InvalidInput if it is not set."""
        return _required(self.registry.postgres_url, "TRACE_POSTGRES_URL")

    @cached_property
    def s3(self) -> S3Access:
        """The object store. Raises InvalidInput if only one of key and secret is set."""
        store = self.object_store
        region = store.region or store.default_region
        if store.access_key is None and store.secret_key is None:
            region = region or profile_region(store.profile)
            return S3Access(
                store.bucket, None, None, store.endpoint, region=region or DEFAULT_REGION, profile=store.profile
            )
        if store.access_key is None or store.secret_key is None:
            raise InvalidInput("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both, or neither")
        return S3Access(
            store.bucket,
            store.access_key.get_secret_value(),
            store.secret_key.get_secret_value(),
            store.endpoint,
            region=region or DEFAULT_REGION,
            session_token=_plain(store.session_token),
        )

    @property
    def s3_for_queries(self) -> S3Access:
        """The object store with the key that may only read, if one is set; else as it is."""
        store = self.object_store
        if store.query_access_key is None or store.query_secret_key is None:
            return self.s3
        return replace(
            self.s3,
            access_key=store.query_access_key.get_secret_value(),
            secret_key=store.query_secret_key.get_secret_value(),
            session_token=None,
            profile=None,
        )

    @cached_property
    def caps(self) -> Caps:
        """How large one range may become."""
        ranges = self.ranges
        return Caps(ranges.files_per_range, ranges.bytes_per_file, ranges.bytes_per_range)

    @cached_property
    def sqs(self) -> SqsAccess | None:
        """The SQS queues; None if they are not set."""
        queue = self.queue
        if queue.url is None or queue.dead_url is None:
            return None
        return SqsAccess(
            queue_url=queue.url.get_secret_value(),
            dead_queue_url=queue.dead_url.get_secret_value(),
            endpoint=_plain(queue.endpoint),
            access_key=_plain(queue.access_key),
            secret_key=_plain(queue.secret_key),
        )

    @property
    def web_password(self) -> str | None:
        """The password of Dagster's web server, if it has one."""
        return _plain(self.stack.web_password)

    @property
    def gateway_url(self) -> str | None:
        """The URL of a gateway that runs already; it holds the token."""
        return _plain(self.gateway.url)

    @property
    def home(self) -> Path:
        """TRACE_HOME as an absolute path."""
        return self.stack.home.absolute()

    def pool(self, name: str) -> RpcPool:
        """Return an RPC pool; see :meth:`RpcSettings.pool`."""
        return self.rpc.pool(name)

    def child_variables(self, choose: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
        """Return the variables to start a child process with, as they were read: those that ``choose`` accepts."""
        return {name: value for name, value in self._environment.items() if choose(name)}

    def secrets(self) -> Iterator[str]:
        """Yield every secret: keys, passwords, tokens, and the URLs of RPC endpoints."""
        if self.registry.postgres_url is not None:
            yield from _passwords(self.registry.postgres_url.get_secret_value())
        groups = (self.object_store, self.queue, self.gateway, self.query, self.stack, self.chaos)
        for value in (value for group in groups for _, value in group if isinstance(value, SecretStr)):
            yield value.get_secret_value()
        for pool in self.rpc.pools.values():
            yield from pool.urls
        for each in self.rpc.named.values():
            if each.websocket_url is not None:
                yield from filter(None, websocket_urls(each.websocket_url.get_secret_value()))
        if self.rpc.fallback is not None:
            yield from split_urls(self.rpc.fallback.get_secret_value())

    def _require_pairs(self) -> None:
        if (self.queue.url is None) != (self.queue.dead_url is None):
            raise InvalidInput("TRACE_SQS_QUEUE_URL and TRACE_SQS_DEAD_QUEUE_URL go together: set both, or neither")
        if (self.object_store.query_access_key is None) != (self.object_store.query_secret_key is None):
            raise InvalidInput(
                "TRACE_S3_QUERY_ACCESS_KEY_ID and TRACE_S3_QUERY_SECRET_ACCESS_KEY go together: set both, or neither"
            )
        if (self.queue.access_key is None) != (self.queue.secret_key is None):
            raise InvalidInput(
                "TRACE_SQS_ACCESS_KEY_ID and TRACE_SQS_SECRET_ACCESS_KEY go together: set both, or neither"
            )


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the settings of a process that uses the registry and the object store.

    Raises InvalidInput with the name of the variable that is missing or wrong.
    """
    return Settings.read(environment).complete()


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yield each variable of the tree and its field, in the order of the tree, without those of pools."""
    for group in Settings.model_fields.values():
        for field in group.annotation.model_fields.values():  # type: ignore[union-attr]
            if field.alias and "<" not in field.alias:
                yield field.alias, field


def _refuse(error: ValidationError) -> NoReturn:
    """Raise the first error as one line that starts with its variable."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    variable = f"TRACE_RPC_POOL_{path[2].upper()}_{path[3]}" if path[0] == "rpc" and len(path) > 3 else path[1]
    raise InvalidInput(f"{variable} {first['msg'].removeprefix('Value error, ')}") from None


def _required(value: SecretStr | None, variable: str) -> str:
    if value is None:
        raise InvalidInput(
            f"{variable} is not set and no stack is running here: start one with `trace-lite up --detach`"
        )
    return value.get_secret_value()


def _plain(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _passwords(url: str) -> Iterator[str]:
    """Yield a Postgres URL's password twice: as written, and percent-decoded. Host and database are not secret."""
    try:
        written = urlsplit(url).password
    except ValueError:
        return
    if written:
        yield from {written, unquote(written)}
