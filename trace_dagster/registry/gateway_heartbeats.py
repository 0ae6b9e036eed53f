"""Heartbeats of gateways: which gateways ask which endpoints now, so that they share one budget."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from trace_dagster.registry.connection import Database


def record_gateway_heartbeat(database: Database, gateway: UUID, fingerprints: Collection[str]) -> dict[str, int]:
    """Record that a gateway asks these endpoints; return how many gateways ask each, itself included.

    Raise Unavailable if Postgres does not answer.
    """
    with database.transaction() as session:
        session.many(
            "record_gateway_heartbeat", [{"gateway": gateway, "fingerprint": each} for each in sorted(fingerprints)]
        )
        rows = session.all("gateways_asking", fingerprints=list(fingerprints))
    return {str(row["fingerprint"]): int(row["gateways"]) for row in rows}


def forget_gateway(database: Database, gateway: UUID) -> None:
    """Remove a gateway that ended, and gateways that fell silent long ago."""
    with database.transaction() as session:
        session.run("delete_gateway_heartbeats", gateway=gateway)
        session.run("delete_old_gateway_heartbeats")
