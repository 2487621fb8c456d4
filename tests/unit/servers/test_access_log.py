"""What an access log may show."""

from __future__ import annotations

import logging

import pytest

from realtime.servers.access_log import redact, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("/connection/sse?cf_connect=%7B%7D&x=1", "/connection/sse?cf_connect=***&x=1"),
        ("/api/publish?a=b&api_key=secret", "/api/publish?a=b&api_key=***"),
        ("/api/publish?my_api_key=b", "/api/publish?my_api_key=b"),
        ("/admin/", "/admin/"),
    ],
)
def test_without_secrets(address: str, shown: str) -> None:
    """Only the values of the two parameters go."""
    assert without_secrets(address) == shown


def test_redact_keeps_the_rest_of_a_record() -> None:
    """The record goes on, with its numbers as numbers."""
    args = ("1.2.3.4:5", "GET", "/connection/sse?cf_connect=secret", "1.1", 200)
    record = logging.LogRecord("x", 20, "f", 1, '%s - "%s %s HTTP/%s" %d', args, None)

    assert redact(record) is True

    assert record.getMessage() == '1.2.3.4:5 - "GET /connection/sse?cf_connect=*** HTTP/1.1" 200'
