"""Modules that the fork server imports one time, because every killed process would load them again: mainly boto3's."""

import tests.support.cycle
import tests.support.tripwire  # noqa: F401
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

ObjectStore(S3Access("warm", "warm", "warm", "http://127.0.0.1:9"))
