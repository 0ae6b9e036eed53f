"""Heads, bounds, ranges, run groups, and the dispatcher that cuts wake-ups into runs."""
