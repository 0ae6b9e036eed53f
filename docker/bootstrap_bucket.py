"""Make the bucket, and refuse to go on when strangers can read it. One shot, before anything else starts."""

from __future__ import annotations

import os
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

from trace_dagster.config.settings import Settings
from trace_dagster.errors import TraceError
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ensure_bucket


def is_private(access: S3Access) -> bool:
    """Whether a request without credentials is turned away."""
    try:
        with urlopen(f"{access.endpoint}/{access.bucket}?list-type=2", timeout=10):  # noqa: S310  (our own setting)
            return False
    except HTTPError as error:
        return error.code in (401, 403)


def main() -> None:
    try:
        access = Settings.read(os.environ).s3
        ensure_bucket(access)
    except TraceError as error:
        sys.exit(f"error: {error}")
    if not is_private(access):
        sys.exit(f"error: anyone can read the bucket: take its public policy away bucket={access.bucket}")


if __name__ == "__main__":
    main()
