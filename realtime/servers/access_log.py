"""
Addresses without their secrets: a browser's ``EventSource`` has no headers, so its token is in the query.

An API key may be there as well.
"""

from __future__ import annotations

import logging
import re


_SECRET = re.compile(r"([?&](?:cf_connect|api_key)=)[^&\s]*")


def without_secrets(text: str) -> str:
    """Blank the parameters of an address that are nobody's business."""
    return _SECRET.sub(r"\1***", text)


def redact(record: logging.LogRecord) -> bool:
    """Blank them in a record of uvicorn's access log; a filter that lets all records through."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            without_secrets(arg) if isinstance(arg, str) else arg for arg in record.args
        )
    return True
