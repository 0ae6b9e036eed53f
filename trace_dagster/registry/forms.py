"""Streams whose rows are stored in a form that this version does not read, and the way out."""

from __future__ import annotations

from itertools import groupby

from trace_dagster.identity import LAKE_FORM
from trace_dagster.registry.connection import Database


def old_form(form: int, job_name: str) -> str:
    """Return the sentence that names the form of a stream's rows, and how they are rebuilt."""
    return (
        f"{_left_out(form)} and shown as gaps until `trace-lite apply --rebuild --file F`, with the file of job"
        f" {job_name}, has them fetched again; nothing is deleted before"
    )


def old_form_of_derived(form: int) -> str:
    """Return the sentence that names the form of a derived dataset's rows, and how they are replaced."""
    return f"{_left_out(form)} until it is materialized again, after the streams that it reads are rebuilt"


def _left_out(form: int) -> str:
    return f"its rows are stored in form {form}, and this version reads form {LAKE_FORM}: they are left out"


def old_form_notes(database: Database) -> list[str]:
    """Return a line per job with streams of an older form, and one per derived dataset of an older form."""
    with database.snapshot() as session:
        streams, derived = session.all("old_form_streams"), session.all("old_form_derived")
    notes = []
    for job_name, group in groupby(streams, key=lambda row: row["job_name"]):
        members = list(group)
        keys = ", ".join(
            row["dataset_key"] + ("" if row["enabled"] else " (taken out of the file: put it back first)")
            for row in members
        )
        notes.append(f"{job_name}: {keys}: {old_form(members[0]['form'], job_name)}")
    for row in derived:
        notes.append(f"{row['dataset_key']} of chain {row['chain_id']}: {old_form_of_derived(row['form'])}")
    return notes
