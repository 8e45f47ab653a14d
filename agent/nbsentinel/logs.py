"""The operator's log: one JSON object a line on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def operator_log(level: str) -> Callable[[str, dict[str, object]], None]:
    """Return a function that writes (event, details) as one line.

    It never raises: a closed terminal, a pipe without a reader or a full disk costs lines, not the watch.

    Args:
        level: The least severe level that is written: debug, info, warning or error.
    """
    import structlog

    logger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )

    def write(event: str, details: dict[str, object]) -> None:
        with contextlib.suppress(Exception):
            if "error" in details or "pid" in details:
                logger.warning(event, **details)
            else:
                logger.info(event, **details)

    return write
