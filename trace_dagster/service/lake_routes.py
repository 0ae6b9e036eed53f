"""Routes that describe the lake: datasets, files, changes, health, metrics."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
