"""Neighbouring committed ranges become few large files: what is worth it, writing, comparing, swapping."""
