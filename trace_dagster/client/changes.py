"""Follows the change log over a service: no change is lost if a connection is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from trace_dagster.client.json_shape import Shape, checked
from trace_dagster.client.service_errors import expected_form
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import Unavailable

_PAGE = 1000
_WAIT_SECONDS = 25
"""Longest time that the service waits for a change; proxies often end a silent request after 30 or 60 s."""

_SPARE_SECONDS = 30.0
_MOST_PAUSE_SECONDS = 10.0
_CHANGE: Shape = {
    "cursor": str,
    "kind": str,
    "chain_id": int,
    "dataset_key": str,
    "dataset_uuid": str,
    "range_start": int,
    "range_end": int,
    "generation": (int, None),
    "dataset_version": (str, None),
    "layout_id": (str, None),
    "block_hash": (str, None),
    "reason": (str, None),
    "changed_at": str,
}


@dataclass(frozen=True, slots=True)
class LakeChange:
    """One change of the lake (docs/changes.md)."""

    cursor: str
    """Names this change: go on after it by ``lake.changes(after=cursor)``."""
    kind: Literal["committed", "hot", "pruned", "invalidated", "compacted"]
    chain_id: int
    dataset_key: str
    dataset_uuid: str
    range_start: int
    range_end: int
    """The first block after the range."""
    generation: int | None
    dataset_version: str | None
    layout_id: str | None
    block_hash: str | None
    """Hash of the last block of the range."""
    reason: str | None
    changed_at: datetime

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> LakeChange:
        """Read one change of ``GET /v1/changes``; members that are not known are left out."""
        values = {name: given[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "changed_at": datetime.fromisoformat(values["changed_at"])})


class ChangeFeed:
    """Changes after a cursor, in the order of the log. Iterate over it."""

    def __init__(
        self, http: ServiceHttp, cursor: str, *, follow: bool, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.cursor = cursor
        """Where the next change comes after. It moves over changes of datasets that the token may not see, too."""
        self._http = http
        self._follow = follow
        self._sleep = sleep

    def __iter__(self) -> Iterator[LakeChange]:
        """Yield changes; with ``follow`` wait for more without an end, also while the service is away.

        Raises CursorGone if changes after the cursor are not kept any more, and NoAccess if the token ends.
        """
        while True:
            found, cursor, was_full = self._page()
            for change in found:
                self.cursor = change.cursor
                yield change
            self.cursor = cursor
            if not self._follow and not was_full:
                return

    def _page(self) -> tuple[list[LakeChange], str, bool]:
        """Return changes, the cursor after them, and whether there may be more at once."""
        answer = self._patiently() if self._follow else self._asked(wait=0)
        with expected_form(self._http.host):
            checked(answer, {"changes": [_CHANGE], "cursor": str})
            changes, cursor = [LakeChange.from_json(each) for each in answer["changes"]], answer["cursor"]
        return changes, cursor, cursor != self.cursor

    def _patiently(self) -> Any:
        """Ask until the service answers."""
        pause = 0.5
        while True:
            try:
                return self._asked(wait=_WAIT_SECONDS)
            except Unavailable:
                self._sleep(pause)
                pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    def _asked(self, *, wait: int) -> Any:
        query = urlencode({"after": self.cursor, "limit": _PAGE, "wait": wait})
        return self._http.json("GET", f"/v1/changes?{query}", seconds=wait + _SPARE_SECONDS)
