"""The change log of the lake: each change is written in the transaction that makes it.

Changes are ordered by (xid, change_id), and a reader stops before the lowest transaction that is still open: a later
commit cannot add a change that the reader has passed. A change comes after all those that its transaction could see
(ADR 0018).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Corrupt, CursorGone, InvalidInput
from trace_dagster.registry.connection import Database, Row, Session, storable

Kind = Literal["committed", "invalidated", "compacted", "hot", "pruned"]

OLDEST = "0"
"""The cursor before the oldest change that is kept."""

_CURSOR = re.compile(r"(\d{1,19})-(\d{1,19})-([0-9a-f]{1,6})", re.ASCII)
_MOST = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START_AGAIN = "take the cursor of now (`trace-lite changes --now`, or after=now by HTTP), read the lake, go on from it"


def record_change(
    session: Session,
    kind: Kind,
    dataset_uuid: UUID,
    block_range: BlockRange,
    *,
    generation: int | None = None,
    dataset_version: UUID | None = None,
    layout_id: UUID | None = None,
    reason: str | None = None,
    block_hash: bytes | None = None,
) -> None:
    """Append a change to ``trace.changes``, as part of the transaction of ``session``.

    ``block_hash`` is that of the last block of the range, if it is known.
    """
    session.run(
        "insert_change",
        kind=kind,
        dataset_uuid=dataset_uuid,
        range_start=block_range.start,
        range_end=block_range.end,
        generation=generation,
        dataset_version=dataset_version,
        layout_id=layout_id,
        reason=None if reason is None else storable(reason),
        block_hash=block_hash,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the lake."""

    cursor: str
    """Names this change: pass it to :meth:`ChangeLog.after` to go on after it."""
    kind: Kind
    chain_id: int
    dataset_key: str
    dataset_uuid: UUID
    block_range: BlockRange
    generation: int | None
    dataset_version: UUID | None
    layout_id: UUID | None
    reason: str | None
    changed_at: datetime
    block_hash: bytes | None = None
    """Hash of the last block of the range: of the block that came, or that left. None if it is not known."""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        values = asdict(self)
        del values["block_range"]
        for name in ("dataset_uuid", "dataset_version", "layout_id"):
            values[name] = None if values[name] is None else str(values[name])
        return {
            **values,
            "range_start": self.block_range.start,
            "range_end": self.block_range.end,
            "block_hash": None if self.block_hash is None else f"0x{self.block_hash.hex()}",
            "changed_at": self.changed_at.astimezone(UTC).isoformat(timespec="microseconds"),
        }


@dataclass(frozen=True, slots=True)
class _Position:
    xid: int
    change_id: int
    mark: str
    """Six hex digits of the change's time. A restored database may count up to the same numbers again."""

    @classmethod
    def parse(cls, cursor: str) -> _Position:
        if cursor == OLDEST:
            return cls(0, 0, "")
        match = _CURSOR.fullmatch(cursor)
        if match is None or max(int(match[1]), int(match[2])) > _MOST:
            raise InvalidInput(
                f"{cursor[:100]!r} is no cursor: pass one that `trace-lite changes` printed, or {OLDEST} for the oldest"
            )
        return cls(int(match[1]), int(match[2]), match[3])

    @classmethod
    def of(cls, row: Row) -> _Position:
        """Return the position of a change, or of the floor, whose row has no time."""
        made = row.get("changed_at")
        return cls(int(row["xid"]), int(row["change_id"]), _mark(made) if made else "0")

    @property
    def values(self) -> dict[str, object]:
        """The position as values of a query."""
        return {"xid": str(self.xid), "change_id": self.change_id}

    def __str__(self) -> str:
        return f"{self.xid}-{self.change_id}-{self.mark}"


class ChangeLog:
    """Reads changes in an order into which no change is inserted before one that was read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, cursor: str, limit: int = 1000) -> tuple[list[Change], str]:
        """Return at most ``limit`` changes after a cursor, and the cursor to go on with.

        Raise InvalidInput if the text is no cursor, CursorGone if changes after it were deleted or if it is of another
        database, Corrupt if the log was restored from another server.
        """
        position = _Position.parse(cursor)
        with self._database.snapshot() as session:
            _require_own(session)
            if cursor != OLDEST:
                _require_known(session, position)
            rows = session.all("changes_after", **position.values, limit=limit)
        changes = [_change(row) for row in rows]
        return changes, changes[-1].cursor if changes else cursor

    def now(self) -> str:
        """Return the cursor of this moment. What is read of the lake from now on has every change up to it.

        Raise Corrupt if the log was restored from another server.
        """
        with self._database.snapshot() as session:
            _require_own(session)
            return cursor_of(session)

    def restart_if_restored(self) -> bool:
        """Empty the log if it was restored from another server, whose numbers mean nothing here."""
        with self._database.transaction() as session:
            session.one("lock_changes_floor")
            if not _is_foreign(session):
                return False
            session.run("restart_changes")
        return True


def cursor_of(session: Session) -> str:
    """Return the cursor of a session's snapshot: the snapshot has every change up to it.

    It also has changes of transactions that ended while an older one was open; they come again after the cursor.
    """
    row = session.one("last_change") or session.one("changes_floor")
    assert row is not None
    return str(_Position.of(row))


def _is_foreign(session: Session) -> bool:
    row = session.one("foreign_changes")
    return bool(row and row["is_foreign"])


def _require_own(session: Session) -> None:
    if _is_foreign(session):
        raise Corrupt(
            "the change log was restored from another Postgres server, whose transaction numbers are not this one's:"
            " run `trace-lite migrate`, which empties the log"
        )


def _require_known(session: Session, position: _Position) -> None:
    found = session.one("change_of_cursor", **position.values)
    assert found is not None
    if found["is_deleted"]:
        raise CursorGone(
            f"changes after this cursor were deleted because of their age (TRACE_CHANGES_DAYS): {_START_AGAIN}",
            cursor=position,
        )
    is_known = found["changed_at"] is not None and _mark(found["changed_at"]) == position.mark
    if not (is_known or found["is_floor"]):
        raise CursorGone(
            "no change of this database has this cursor: it is of another database, or of this one before it was"
            f" restored: {_START_AGAIN}",
            cursor=position,
        )


def _mark(made: datetime) -> str:
    return f"{(made - _EPOCH) // timedelta(microseconds=1) % 2**24:x}"


def _change(row: Row) -> Change:
    return Change(
        cursor=str(_Position.of(row)),
        kind=row["kind"],
        chain_id=row["chain_id"],
        dataset_key=row["dataset_key"],
        dataset_uuid=row["dataset_uuid"],
        block_range=BlockRange(row["range_start"], row["range_end"]),
        generation=row["generation"],
        dataset_version=row["dataset_version"],
        layout_id=row["layout_id"],
        reason=row["reason"],
        changed_at=row["changed_at"],
        block_hash=None if row["block_hash"] is None else bytes(row["block_hash"]),
    )
