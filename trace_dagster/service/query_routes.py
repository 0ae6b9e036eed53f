"""Routes that run queries."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
