"""The ``kind: chain_sync`` YAML as a strict, frozen model. Errors name file, line and key.

Reading a file uses neither the network nor the environment. Error messages repeat no value, and no key unless it is
known or close to a known one: a secret may be in the wrong place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.config.compact import OFF_TAG, SETTINGS_TAG, Compact, CompactOrOff
from trace_dagster.config.cron import named_cron
from trace_dagster.config.follow_rules import broken_rules
from trace_dagster.config.yaml_positions import Document, KeyPath, read_document
from trace_dagster.datasets.catalogue import NATIVE_DATASETS, NATIVE_LACKS, Dataset, can_be_hot, catalogue, dataset
from trace_dagster.datasets.levels import VerifiedAsAsked, Verify
from trace_dagster.errors import InvalidInput

MAX_FILE_BYTES = 1_000_000
MAX_CHAIN_ID = 2**53 - 1
_MOST_ERRORS = 20
"""Errors that are reported of one file."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_DATASET_KEY = r"^[a-z0-9_]{1,64}$"
DatasetKey = Annotated[str, StringConstraints(pattern=_DATASET_KEY)]
Block = Annotated[int, Field(ge=0, le=MAX_BLOCK)]
LatestMinus = Annotated[str, StringConstraints(pattern=r"^latest-[0-9]{1,18}$")]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FixedTarget(_FrozenModel):
    """Mode that syncs ``[from_block, to_block)`` and stops."""

    kind: Literal["fixed_target"]
    from_block: Block | LatestMinus
    to_block: Block | Literal["finalized"]

    @model_validator(mode="after")
    def _not_empty(self) -> FixedTarget:
        if isinstance(self.from_block, int) and isinstance(self.to_block, int) and self.to_block <= self.from_block:
            raise ValueError("to_block: must be greater than from_block (to_block is end-exclusive)")
        return self


class FollowHead(_FrozenModel):
    """Mode that syncs from ``from_block`` and follows the chain's head: its newest blocks are hot rows, final ones are
    committed ``tail_lag`` blocks behind the head.
    """

    kind: Literal["follow_head"]
    from_block: Block | LatestMinus
    tail_lag: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    head_poll_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    max_head_age_seconds: Annotated[int, Field(ge=1, le=86_400)] = 120
    backfill: Literal["newest_first", "oldest_first"] = "newest_first"
    """The order in which history is committed."""
    hot_max_blocks: Annotated[int, Field(ge=100, le=1_000_000)] = 50_000
    """Most blocks that are hot. Beyond them the follower stops, with the reason in status."""
    cold_after_blocks: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Final hot blocks that start the commit of whole cells; None: as many as the stream's chunk_size."""
    cold_cron: str | None = None
    """When final whole cells are committed, in UTC, instead of by cold_after_blocks."""
    max_cold_lag: Annotated[int, Field(ge=10, le=1_000_000)] | None = None
    """Blocks that may be final and not yet committed; beyond them a cell is cut. None: only whole cells."""

    @model_validator(mode="after")
    def _commits_by_cron_or_by_number(self) -> FollowHead:
        if self.cold_cron is not None and self.cold_after_blocks is not None:
            raise ValueError("cold_cron: excludes cold_after_blocks: write one of them")
        return self

    @field_validator("cold_cron")
    @classmethod
    def _cron_can_be_due(cls, value: str | None) -> str | None:
        return None if value is None else named_cron("cold_cron", value)


class Stream(VerifiedAsAsked, _FrozenModel):
    """One dataset of the chain, and how it is fetched. ``chunk_size`` is the number of blocks of a range."""

    cryo_dataset_name: str
    rpc_pool: Name
    chunk_size: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    max_inflight: Annotated[int, Field(ge=1, le=1000)] = 4
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    verify: Verify = "full"
    engine: Literal["cryo", "native"] = "cryo"
    requests_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_concurrent_requests: Annotated[int, Field(ge=1, le=10_000)] | None = None
    inner_request_blocks: Annotated[int, Field(ge=1, le=1000)] = 100
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 3600
    compact: CompactOrOff = Compact()

    @field_validator("verify", "compact", mode="before")
    @classmethod
    def _false_is_off(cls, value: Any) -> Any:
        """Turn false back into ``off``: YAML 1.1 reads a bare ``off`` as false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _dataset_is_known(self) -> Stream:
        key = "cryo_dataset_name"
        try:
            known = self.dataset
            key = "columns"
            known.stored_columns(self.columns)
        except InvalidInput as error:
            raise ValueError(f"{key}: {error.message}") from None
        return self

    @model_validator(mode="after")
    def _native_can_build_it(self) -> Stream:
        if self.engine != "native":
            return self
        name = self.cryo_dataset_name
        if name not in NATIVE_DATASETS:
            raise ValueError(f"engine: native builds rows of {', '.join(NATIVE_DATASETS)} only: use cryo for {name}")
        if self.verify in {"structural", "off"}:
            raise ValueError(
                f"engine: native builds rows from what is proven: it needs verify: full, not {self.verify}"
            )
        lacking = [column for column in self.columns or () if column in NATIVE_LACKS.get(name, ())]
        if lacking:
            raise ValueError(f"engine: native has no column {lacking[0]}: use cryo, or leave the column out")
        return self

    @property
    def dataset(self) -> Dataset:
        """Cryo's dataset."""
        return dataset(self.cryo_dataset_name)

    @property
    def can_be_hot(self) -> bool:
        """Whether the newest blocks of a job that follows the head can be hot rows of this stream."""
        return can_be_hot(self.cryo_dataset_name, self.dataset.stored_columns(self.columns))


class ChainSync(_FrozenModel):
    """One job: a chain, a span of blocks, and its streams by dataset key."""

    kind: Literal["chain_sync"]
    name: Name
    chain_id: Annotated[int, Field(ge=1, le=MAX_CHAIN_ID)]
    mode: Annotated[FixedTarget | FollowHead, Field(discriminator="kind")]
    finality_blocks: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Blocks below the latest one from which on a block counts as final. If set, no node is asked for its tag."""
    streams: Annotated[dict[DatasetKey, Stream], Field(min_length=1, max_length=64)]


def read(path: Path) -> ChainSync:
    """Read and check a chain_sync file. Raises InvalidInput with one line per error: ``file:line: key: reason``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"{path}: a chain_sync file is at most {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text at byte {error.start}") from None
    return parse(text, source=str(path))


def parse(text: str, source: str = "<text>") -> ChainSync:
    """Check the text of a chain_sync file. Raises InvalidInput as :func:`read` does."""
    document = read_document(text, source, _shown)
    raw = document.value
    if not isinstance(raw, dict):
        raise InvalidInput(f"{source}:1: a chain_sync file is a mapping that starts with `kind: chain_sync`")
    merged = _with_defaults(raw, document)
    try:
        job = ChainSync.model_validate(merged)
    except ValidationError as failure:
        raise _invalid(source, _lines_of(failure, document, raw)) from None
    if isinstance(job.mode, FollowHead) and (broken := list(broken_rules(job, job.mode))):
        raise _invalid(source, (str(document.error(_written_in(path, document), why)) for path, why in broken))
    return job


def _invalid(source: str, lines: Iterator[str]) -> InvalidInput:
    found = list(dict.fromkeys(islice(lines, _MOST_ERRORS + 1)))
    more = [f"{source}: more errors follow"] if len(found) > _MOST_ERRORS else []
    return InvalidInput("\n".join([*found[:_MOST_ERRORS], *more]))


def _with_defaults(raw: dict[str, Any], document: Document) -> dict[str, Any]:
    merged = dict(raw)
    if "defaults" not in merged:
        return merged
    defaults = merged.pop("defaults")
    if not isinstance(defaults, dict):
        raise document.error(("defaults",), "must be a mapping of stream keys")
    for key in defaults:
        if key not in Stream.model_fields:
            raise document.error(("defaults", key), f"unknown key{_did_you_mean(key, Stream.model_fields)}")
    streams = merged.get("streams")
    if isinstance(streams, dict):
        merged["streams"] = {
            key: _over(defaults, value) if isinstance(value, dict) else value for key, value in streams.items()
        }
    return merged


def _over(defaults: dict[str, Any], stream: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a stream over those of ``defaults``; keys of ``compact`` one by one."""
    compact = [each["compact"] for each in (defaults, stream) if isinstance(each.get("compact"), dict)]
    nested = {"compact": {**compact[0], **compact[1]}} if len(compact) == 2 else {}
    return {**defaults, **stream, **nested}


def _lines_of(failure: ValidationError, document: Document, raw: dict[str, Any]) -> Iterator[str]:
    for error in failure.errors(include_url=False, include_input=False):
        path = _written_path(error["loc"])
        if error["type"] == "value_error":  # the validators above raise "key: reason"
            key = str(error["msg"]).removeprefix("Value error, ").partition(":")[0]
            path = path if path[-1:] == (key,) else (*path, key)
        if error["type"] != "missing":
            path = _written_in(path, document)
        yield str(document.error(path, _reason(error, path, raw)))


def _written_in(path: KeyPath, document: Document) -> KeyPath:
    """Return where a key is written: the key of a stream may come from ``defaults``."""
    inherited = ("defaults", *path[2:])
    is_of_stream = path[:1] == ("streams",) and len(path) >= 3 and path not in document.lines
    return inherited if is_of_stream and inherited in document.lines else path


_UNION_TAGS = {"fixed_target", "follow_head", "int", "[key]", "constrained-str", "literal['finalized']"}
_UNION_TAGS |= {SETTINGS_TAG, OFF_TAG}


def _written_path(location: tuple[str | int, ...]) -> KeyPath:
    """Remove union branches and the ``[key]`` marker, which pydantic adds to a location."""
    return tuple(
        part
        for index, part in enumerate(location)
        if not (index and isinstance(part, str) and (part in _UNION_TAGS or part.startswith("constrained")))
    )


_PATTERN_REASONS = {
    "rpc_pool": "must be the NAME of an rpc pool (a-z, 0-9, _); its URL goes into TRACE_RPC_POOL_<NAME>_URL",
    "name": "must match ^[a-z][a-z0-9_]{0,63}$",
    "from_block": "must be a block number or latest-N, such as latest-50000",
    "to_block": "must be a block number or finalized",
}


_COMPACT_REASON = "must be off, or a mapping of after_files, cron and target_bytes"


def _reason(error: Any, path: KeyPath, raw: dict[str, Any]) -> str:
    key = str(path[-1]) if path else ""
    if key in {"from_block", "to_block"} and error["type"] not in {
        "missing",
        "extra_forbidden",
        "value_error",
    }:
        return f"{_PATTERN_REASONS[key]}, within 0 and 2^63-1"
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(key, path, raw)
        case "missing":
            return "this key is required"
        case "string_pattern_mismatch":
            return _PATTERN_REASONS.get(key, f"must match {_DATASET_KEY}")
        case "union_tag_not_found" | "union_tag_invalid":
            return _COMPACT_REASON if key == "compact" else "kind must be fixed_target or follow_head"
        case "value_error":
            return str(error["msg"]).partition(": ")[2]
        case _:
            return str(error["msg"])[:1].lower() + str(error["msg"])[1:]


def _unknown_key(key: str, path: KeyPath, raw: dict[str, Any]) -> str:
    if path[:1] == ("mode",):
        kind = (raw.get("mode") or {}).get("kind")
        other = FollowHead if kind == "fixed_target" else FixedTarget
        if key in other.model_fields:
            owner = "follow_head" if other is FollowHead else "fixed_target"
            return f"belongs to mode {owner}, and this job's mode is another"
        mine = FixedTarget if kind == "fixed_target" else FollowHead
        return f"unknown key{_did_you_mean(key, mine.model_fields)}"
    if (path[1:2] if path[:1] == ("defaults",) else path[2:3]) == ("compact",) and len(path) > 2:
        return f"unknown key{_did_you_mean(key, Compact.model_fields)}"
    known = Stream.model_fields if path[:1] == ("streams",) else {**ChainSync.model_fields, "defaults": None}
    return f"unknown key{_did_you_mean(key, known)}"


_MODELS = (ChainSync, FixedTarget, FollowHead, Stream, Compact)
_KEYS = {"defaults", *(key for model in _MODELS for key in model.model_fields)}


def _shown(path: KeyPath) -> str:
    """Return a path up to its first key that might be a secret in the wrong place."""
    parts: list[str] = []
    for index, part in enumerate(path):
        if not (isinstance(part, int) or part in _KEYS or _is_dataset_key(path[:index], part) or _is_close(part)):
            return ".".join([*parts, "(key not shown)"])
        parts.append(str(part))
    return ".".join(parts)


def _is_dataset_key(parents: KeyPath, key: str) -> bool:
    return parents == ("streams",) and re.fullmatch(_DATASET_KEY, key) is not None


def _is_close(key: str) -> bool:
    """Return whether a key is a known one with a typing error."""
    return bool(difflib.get_close_matches(key, [*_KEYS, *catalogue()], n=1))


def _did_you_mean(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
