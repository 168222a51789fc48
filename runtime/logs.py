"""Structured logs: structlog's context and JSON over the standard library's levels and handlers.

A program that embeds Secateur decides with ``logging`` what is shown; nothing is by default below
warnings. Every line carries the run's id, and the thought's where there is one.
"""

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from ..gates.visible import visible
from .redaction import redacted

__all__ = ["get_logger", "show_logs"]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that renders one JSON object a line, with the bound run and thought."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.JSONRenderer(_spelt),
        ],
    ).bind()  # once, for what is bound at each line costs more than a line that nobody reads


def _spelt(line: Any, **options: Any) -> str:
    return visible(json.dumps(line, **options))


def show_logs(verbose: bool) -> None:
    """For the command line: everything on stderr when ``verbose``, else errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("secateur").setLevel(logging.INFO if verbose else logging.ERROR)


def _redact(logger: Any, method: str, said: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: redacted(it) if isinstance(it, str) else it for key, it in said.items()}


class _Redacting(logging.Formatter):
    """What other libraries log, tracebacks too, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
