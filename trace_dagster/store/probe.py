"""Tries on the bucket what a sync will do, so that a missing right or an unfit server shows before the first range."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from trace_dagster.errors import InvalidInput
from trace_dagster.store.access import S3Access
from trace_dagster.store.causes import PreconditionFailed
from trace_dagster.store.objects import ObjectStore, ensure_bucket

PREFIX = "_trace_probe/"
"""Keys of the probe; it deletes them."""


def prepare_bucket(access: S3Access) -> None:
    """Create the bucket unless it exists; try put, conditional put, get, list and delete.

    Raises InvalidInput if a right is missing, or if the server does not keep the conditions of a put; Unavailable if
    the server does not answer.
    """
    ensure_bucket(access)
    store = ObjectStore(access, max_connections=1)
    key = f"{PREFIX}{uuid4()}"
    store.put_if_absent(key, b"first")
    try:
        _try_conditions(store, key)
        if store.stored([key]).keys() != {key} or list(store.keys(key)) != [key]:
            raise InvalidInput("the object store does not list an object that it has just stored: use another server")
    finally:
        store.delete([key])
    if store.read(key) is not None:
        raise InvalidInput("the object store still has an object that it has just deleted: use another server")


def _try_conditions(store: ObjectStore, key: str) -> None:
    """Raise InvalidInput unless a second create and a replace with an old ETag are refused."""
    _require_refusal(lambda: store.put_if_absent(key, b"second"), "If-None-Match")
    data, etag = store.get(key)
    try:
        store.replace(key, b"other", etag)
    except PreconditionFailed:
        raise _unfit("If-Match") from None
    _require_refusal(lambda: store.replace(key, b"late", etag), "If-Match")
    if data != b"first" or store.read(key) != b"other":
        raise InvalidInput("the object store returns other bytes than were stored: use another server")


def _require_refusal(put: Callable[[], None], condition: str) -> None:
    try:
        put()
    except PreconditionFailed:
        return
    raise _unfit(condition)


def _unfit(condition: str) -> InvalidInput:
    return InvalidInput(
        f"the object store does not keep the condition {condition} of a put, so two attempts could overwrite each"
        " other's manifest: use AWS S3, MinIO, SeaweedFS or another server with conditional writes"
    )
