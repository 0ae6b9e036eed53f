"""Which gateways ask which endpoints now, so that they share one budget."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from trace_dagster.registry.connection import Database


def record_gateway_heartbeat(database: Database, gateway: UUID, fingerprints: Collection[str]) -> dict[str, int]:
    """Say that a gateway asks these endpoints; how many gateways do, itself included. Raises Unavailable."""
    with database.transaction() as session:
        session.many(
            "record_gateway_heartbeat", [{"gateway": gateway, "fingerprint": each} for each in sorted(fingerprints)]
        )
        rows = session.all("gateways_asking", fingerprints=list(fingerprints))
    return {str(row["fingerprint"]): int(row["gateways"]) for row in rows}


def forget_gateway(database: Database, gateway: UUID) -> None:
    """It ended by itself, and what others left behind long ago goes with it."""
    with database.transaction() as session:
        session.run("forget_gateway", gateway=gateway)
        session.run("delete_old_gateways")
