"""Dagster's web server behind a door: who may ask it, from which page, and with which password."""
