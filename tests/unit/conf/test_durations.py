"""Durations: what is read, what is printed, and that one is the other backwards."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.conf.durations import MAX_NANOSECONDS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("25s", 25.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("300ms", 0.3),
        ("2us", 2e-6),
        ("2\u00b5s", 2e-6),
        ("2\u03bcs", 2e-6),
        ("7ns", 7e-9),
        ("720h", 2592000.0),
        ("1m1m", 120.0),
        ("+1s", 1.0),
        ("-1.5s", -1.5),
        ("0", 0.0),
        ("-0", 0.0),
        (0, 0.0),
        (0.0, 0.0),
        (dt.timedelta(minutes=1), 60.0),
    ],
)
def test_reads(text, seconds):
    """All units, fractions, signs, several parts in any order."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (25, "25s"),
        (60, "1m0s"),
        (5400, "1h30m0s"),
        (2592000, "720h0m0s"),
        (0.3, "300ms"),
        (1.5, "1.5s"),
        (90.25, "1m30.25s"),
        (2e-6, "2\u00b5s"),
        (1.5e-6, "1.5\u00b5s"),
        (7e-9, "7ns"),
        (-1.5, "-1.5s"),
        (-3600, "-1h0m0s"),
    ],
)
def test_prints_canonically(seconds, text):
    """Minutes and hours always bring the smaller units along; below a second it is one unit."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (25, 'a duration needs a unit, as in "25s", got the number 25'),
        (0.5, 'a duration needs a unit, as in "0.5s", got the number 0.5'),
        ("25", 'a duration needs a unit, as in "25s", got "25"'),
        ("-25", 'a duration needs a unit, as in "-25s", got "-25"'),
        ("", 'expected a duration such as "25s" or "1h30m", got ""'),
        ("-", 'expected a duration such as "25s" or "1h30m", got "-"'),
        ("s", 'expected a duration such as "25s" or "1h30m", got "s"'),
        (".s", 'expected a duration such as "25s" or "1h30m", got ".s"'),
        ("1d", 'expected a duration such as "25s" or "1h30m", got "1d"'),
        ("1 s", 'expected a duration such as "25s" or "1h30m", got "1 s"'),
        ("1s ", 'expected a duration such as "25s" or "1h30m", got "1s "'),
        ("1m30", 'expected a duration such as "25s" or "1h30m", got "1m30"'),
        ("1S", 'expected a duration such as "25s" or "1h30m", got "1S"'),
        ("--1s", 'expected a duration such as "25s" or "1h30m", got "--1s"'),
        ("\u0661s", 'expected a duration such as "25s" or "1h30m", got "\u0661s"'),
        ("9999999h", 'a duration ends at about 292 years, got "9999999h"'),
        (True, 'expected a duration such as "25s", got bool'),
        (False, 'expected a duration such as "25s", got bool'),
        (None, 'expected a duration such as "25s", got NoneType'),
        ([], 'expected a duration such as "25s", got list'),
    ],
)
def test_refuses(value, message):
    """A number without a unit above all, for Centrifugo takes it for nanoseconds."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the text is compared below
        parse_duration(value)

    assert str(caught.value) == message


# From here on a float can't tell neighbouring nanoseconds apart.
EXACT_NANOSECONDS = 2**53


@given(st.integers(-EXACT_NANOSECONDS, EXACT_NANOSECONDS))
def test_what_is_printed_reads_back(nanoseconds):
    """To the nanosecond, over a hundred days, in both directions of time."""
    seconds = nanoseconds / 1e9

    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, MAX_NANOSECONDS // 10**9))
def test_whole_seconds_read_back(seconds):
    """However many."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text("0123456789.hmsnu+-", max_size=12))
def test_text_reads_as_a_printable_duration_or_not_at_all(text):
    """No other exception, and the canonical form of a canonical form is itself."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return

    printed = format_duration(seconds)

    assert format_duration(parse_duration(printed)) == printed
