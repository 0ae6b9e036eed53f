"""The folder of a stack. It is of its own so that a client finds it without the settings."""

from pathlib import Path

DEFAULT_HOME = Path(".trace")
