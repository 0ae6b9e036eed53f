"""What the environment says, checked once and carried as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trace_dagster.errors import InvalidInput
from trace_dagster.store.access import S3Access
from trace_dagster.store.caps import Caps

DEFAULT_BUCKET = "trace-lake"
_SQS_OPTIONAL = ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")


@dataclass(frozen=True, slots=True)
class SqsAccess:
    """The SQS queues that carry wake-ups, where the registry's own table should not."""

    queue_url: str = field(repr=False)
    dead_queue_url: str = field(repr=False)
    endpoint: str | None = field(repr=False)
    access_key: str | None = field(repr=False)
    """None: the object store's."""
    secret_key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process needs to reach the registry and the store. Secrets never show in repr."""

    postgres_url: str = field(repr=False)
    s3: S3Access
    environment: Mapping[str, str] = field(repr=False)
    caps: Caps = field(default_factory=Caps)
    lease_ttl_seconds: float = 60.0
    max_attempts: int = 3
    retry_base_seconds: float = 5.0
    sqs: SqsAccess | None = None
    ranges_per_run: int | None = None
    """Block ranges of one Dagster run at most; None: as many as take ten minutes."""


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read settings. Raises InvalidInput naming the variable that is missing or wrong."""
    usual = Caps()
    caps = Caps(
        files_per_range=_number(environment, "MAX_PARQUET_FILES_PER_RANGE", usual.files_per_range),
        bytes_per_file=_number(environment, "MAX_PARQUET_BYTES_PER_FILE", usual.bytes_per_file),
        bytes_per_range=_number(environment, "MAX_TOTAL_PARQUET_BYTES_PER_RANGE", usual.bytes_per_range),
    )
    return Settings(
        postgres_url=_required(environment, "TRACE_POSTGRES_URL"),
        s3=s3_access(environment),
        environment=environment,
        caps=caps,
        lease_ttl_seconds=_number(environment, "TRACE_LEASE_TTL_SECONDS", 60),
        max_attempts=_number(environment, "TRACE_MAX_ATTEMPTS", 3),
        retry_base_seconds=_number(environment, "TRACE_RETRY_BASE_SECONDS", 5),
        sqs=_sqs(environment),
        ranges_per_run=ranges_per_run(environment),
    )


def ranges_per_run(environment: Mapping[str, str]) -> int | None:
    """Block ranges of one Dagster run, where somebody set it."""
    return _number(environment, "TRACE_RANGES_PER_RUN", 0) or None


def s3_access(environment: Mapping[str, str]) -> S3Access:
    """The object store the environment names."""
    return S3Access(
        bucket=environment.get("TRACE_S3_BUCKET", "").strip() or DEFAULT_BUCKET,
        access_key=_required(environment, "AWS_ACCESS_KEY_ID"),
        secret_key=_required(environment, "AWS_SECRET_ACCESS_KEY"),
        endpoint=environment.get("TRACE_S3_ENDPOINT", "").strip() or None,
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
    )


def _sqs(environment: Mapping[str, str]) -> SqsAccess | None:
    url = environment.get("TRACE_SQS_QUEUE_URL", "").strip()
    dead = environment.get("TRACE_SQS_DEAD_QUEUE_URL", "").strip()
    if not url and not dead:
        return None
    if not url or not dead:
        raise InvalidInput("TRACE_SQS_QUEUE_URL and TRACE_SQS_DEAD_QUEUE_URL go together: set both, or neither")
    return SqsAccess(url, dead, *(environment.get(f"TRACE_SQS_{name}", "").strip() or None for name in _SQS_OPTIONAL))


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise InvalidInput(f"{name} is not set and no stack is running here: start one with `trace-lite up --detach`")
    return value


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A positive whole number, ``default`` where nothing is set. Raises InvalidInput naming the variable."""
    value = environment.get(name, "").strip()
    if not value:
        return default
    if not value.isdecimal() or not 0 < int(value) < 2**62:
        raise InvalidInput(f"{name} must be a positive whole number", value=repr(value[:40]))
    return int(value)
