"""Decides which versions of a window are rewritten, and when that is worth its bytes (ADR 0019). Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trace_dagster.registry.layouts import SourceFile, SourceVersion, WindowState

MOST_PER_COMMITTED_BYTE = 2.0
"""Bytes that compactions of a dataset may write for each committed byte. With the commit itself that makes 3."""

LEAST_CHANGED = 0.25
"""Share of a group's bytes that must be new or masked. A file that was compacted is not rewritten for less."""


def is_due(state: WindowState, target_bytes: int) -> bool:
    """Return whether a window should be compacted now: it is wholly committed, not held, and worth it."""
    outputs = output_files(state.bytes, target_bytes)
    return (
        state.whole
        and state.due
        and not state.held
        and (state.files > outputs or state.masked_blocks > 0)
        and _is_changed(state.bytes, state.uncompacted_bytes, state.masked_bytes)
    )


def groups(versions: Iterable[SourceVersion], target_bytes: int) -> list[list[SourceVersion]]:
    """Return the groups of neighbouring versions that are worth rewriting, in block order.

    A group has one schema. Versions that are large enough, alone or in their layout's file, stay where they are.
    """
    found: list[list[SourceVersion]] = [[]]
    for version in versions:
        if is_settled(version, target_bytes):
            found.append([])
            continue
        if found[-1] and found[-1][-1].columns != version.columns:
            found.append([])
        found[-1].append(version)
    return [group for group in found if group and is_worth_it(group, target_bytes)]


def is_settled(version: SourceVersion, target_bytes: int) -> bool:
    """Return whether a version's rows are in files that another compaction could not improve."""
    if version.is_compacted:
        return all(not file.masked_blocks and file.bytes >= target_bytes // 2 for file in version.files)
    return sum(file.bytes for file in version.files) >= target_bytes


def is_worth_it(group: Sequence[SourceVersion], target_bytes: int) -> bool:
    """Return whether rewriting a group gives fewer files or drops masked rows, and enough of it has changed."""
    files = files_of(group)
    size = sum(file.bytes for file in files)
    fresh = sum(file.bytes for file in files if file.layout_id is None)
    masked = sum(masked_bytes(file, group) for file in files)
    gains = len(files) > output_files(size, target_bytes) or masked > 0
    return gains and _is_changed(size, fresh, masked)


def files_of(group: Iterable[SourceVersion]) -> list[SourceFile]:
    """Return the files that hold the versions' rows, each a single time, in block order."""
    return list({file.key: file for version in group for file in version.files}.values())


def masked_bytes(file: SourceFile, group: Iterable[SourceVersion]) -> int:
    """Estimate the bytes of a file's masked blocks, by their share of its blocks."""
    live = sum(len(version.block_range) for version in group if file in version.files)
    return file.bytes * file.masked_blocks // (file.masked_blocks + live)


def output_files(size: int, target_bytes: int) -> int:
    """Return the number of files that so many bytes become, at least one."""
    return max(1, -(-size // target_bytes))


def _is_changed(size: int, fresh: int, masked: int) -> bool:
    return fresh + masked >= LEAST_CHANGED * size
