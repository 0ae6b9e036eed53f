"""Writers and readers of the change log as processes of their own, to be killed.

python -m tests.support.change_processes writer URL DATASET SEED
python -m tests.support.change_processes reader URL FILE
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.changes import OLDEST, ChangeLog, record_change
from trace_dagster.registry.connection import Database


def write(url: str, dataset: UUID, seed: int) -> None:
    """Commit transactions with one to three changes each, some of them slow, and roll some back, until killed."""
    chance = random.Random(seed)
    with closing(Database(url)) as database:
        while True:
            try:
                with database.transaction() as session:
                    for _ in range(chance.randint(1, 3)):
                        start = chance.randrange(1_000_000)
                        record_change(session, "committed", dataset, BlockRange(start, start + 1), generation=seed)
                        time.sleep(chance.choice([0, 0, 0.001, 0.05]))
                    if chance.random() < 0.2:
                        raise _GiveUp
            except _GiveUp:
                pass


class _GiveUp(Exception):
    pass


def read(url: str, path: Path) -> None:
    """Append each page of changes with its cursor to a file, as one line, until killed. Go on where the file ends."""
    done = pages(path)
    path.write_text("".join(json.dumps(page) + "\n" for page in done))  # without the half line of a killed reader
    cursor = done[-1]["cursor"] if done else OLDEST
    with closing(Database(url)) as database, path.open("a") as file:
        while True:
            found, cursor = ChangeLog(database).after(cursor, limit=7)
            if found:
                file.write(json.dumps({"changes": [change.cursor for change in found], "cursor": cursor}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            else:
                time.sleep(0.01)


def pages(path: Path) -> list[dict]:
    """Return the whole lines of a reader's file."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    role, url, *rest = sys.argv[1:]
    if role == "writer":
        write(url, UUID(rest[0]), int(rest[1]))
    else:
        read(url, Path(rest[0]))
