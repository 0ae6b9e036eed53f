"""Process logs: one logger per component, one structured line per change of state.

A line is ``time level component event key=value ...``, or one JSON object when ``TRACE_LOG_FORMAT=json``. Lines go to
stderr. Each line passes :func:`trace_dagster.messages.redaction.redact`, so no component has to redact for the log.

    log = component_log("ingest")
    log.event("committed", dataset_key="blocks", block_range=block_range, rows=120)

docs/operations.md lists the events and explains how to read them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from trace_dagster.messages.redaction import redact

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
_ROOT = "trace_dagster"
_FACTS = "trace_facts"
"""Attribute of a log record that holds the facts of its event."""


class ComponentLog:
    """The log of one component."""

    def __init__(self, component: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{component}")

    def event(self, event: str, /, **facts: object) -> None:
        """Log a change of state. Facts that are None are left out."""
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, /, **facts: object) -> None:
        """Log a change of state that someone may want to act on."""
        self._write(logging.WARNING, event, facts)

    def debug(self, event: str, /, **facts: object) -> None:
        """Log a detail; shown when ``TRACE_LOG_LEVEL=debug``."""
        self._write(logging.DEBUG, event, facts)

    def _write(self, level: int, event: str, facts: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            known = {name: value for name, value in facts.items() if value is not None}
            self._logger.log(level, "%s", event, extra={_FACTS: known})


def component_log(component: str) -> ComponentLog:
    """Return the log of a component, named like its package: ``planning``, ``ingest``, ``gateway``."""
    return ComponentLog(component)


def configure_logs(format_name: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's component logs to ``stream`` (stderr), in the given format and from the given level up.

    Called by each process's entry point. Calling it again replaces the earlier configuration.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if format_name == "json" else _TextFormatter())
    root = logging.getLogger(_ROOT)
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the facts of a record that a component logged."""
    return dict(getattr(record, _FACTS, {}))


class _Formatter(logging.Formatter):
    """What both formats share: UTC time with milliseconds, the component's name, redacted facts."""

    @staticmethod
    def time_of(record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"

    @staticmethod
    def safe_facts(record: logging.LogRecord) -> dict[str, bool | int | float | str]:
        """Return the facts as JSON values, redacted.

        Redaction comes before quoting, because quoting changes the text of a secret.
        """
        facts = facts_of(record).items()
        return {name: value if isinstance(value, bool | int | float) else redact(str(value)) for name, value in facts}

    @staticmethod
    def component_of(record: logging.LogRecord) -> str:
        return record.name.removeprefix(f"{_ROOT}.")


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [
            self.time_of(record),
            record.levelname.lower(),
            self.component_of(record),
            record.getMessage(),
            *(f"{name}={_text(value)}" for name, value in self.safe_facts(record).items()),
        ]
        return " ".join(words)


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": self.time_of(record),
            "level": record.levelname.lower(),
            "component": self.component_of(record),
            "event": record.getMessage(),
        }
        facts = self.safe_facts(record)
        return json.dumps({**head, **{name: value for name, value in facts.items() if name not in head}})


def _text(value: object) -> str:
    """Return a value as the text format has it: quoted when it would not be one word."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    is_word = text and not any(each.isspace() or each in "\"'=" or not each.isprintable() for each in text)
    return text if is_word else json.dumps(text)
