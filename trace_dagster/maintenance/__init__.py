"""Checks and clean-up of committed data: audit, completeness certificate, sweep."""
