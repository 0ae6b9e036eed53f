"""Routes of the page: its HTML and its assets."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
