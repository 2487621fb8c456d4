"""The origin check."""

from __future__ import annotations

import pytest

from realtime.consumers.origins import is_origin_allowed


@pytest.mark.parametrize(
    ("origin", "allowed", "is_allowed"),
    [
        (None, (), True),
        ("", (), True),
        ("https://a.example", (), False),
        ("https://a.example", ("*",), True),
        ("https://a.example", ("https://a.example",), True),
        ("HTTPS://A.Example", ("https://a.example",), True),
        ("https://a.example", ("https://A.example",), False),
        ("https://a.example:8443", ("https://a.example",), False),
        ("https://x.y.example", ("https://*.example",), True),
        ("https://example", ("https://*.example",), False),
        ("https://b.example", ("https://{a,b}.example",), True),
        ("https://c.example", ("https://{a,b}.example",), False),
        ("https://c.example", ("https://[a-c].example", "https://z.example"), True),
        ("https://c.example", ("https://?.example",), True),
        ("https://c.example", ("https://{c.example",), False),
    ],
)
def test_an_origin_needs_a_pattern_that_matches(origin, allowed, is_allowed):
    """No origin is no browser; a malformed pattern matches nothing."""
    assert is_origin_allowed(origin, allowed) is is_allowed
