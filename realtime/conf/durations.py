"""
Durations as Centrifugo writes them: ``"300ms"``, ``"1h30m"``, printed canonically as ``1h30m0s``.

Inside the server a duration is a float of seconds; only configuration files, the environment and the admin
see text. Parsing and printing go through whole nanoseconds, so that what is printed reads back as the same value.
"""

from __future__ import annotations

import datetime as dt
import re
from fractions import Fraction


NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "\N{MICRO SIGN}s": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

# A 64-bit count of nanoseconds, about 292 years: what the other implementation can hold.
MAX_NANOSECONDS = 2**63 - 1

_PART = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def parse_duration(value: object) -> float:
    """
    Read a duration as a source holds it.

    Args:
        value: Text of numbers with units, the number 0, or a ``timedelta`` (from Python settings).

    Returns:
        Seconds.

    Raises:
        ValueError: Anything else. In particular a number without a unit: Centrifugo takes it for
            nanoseconds, which is never what was meant.

    """
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f'expected a duration such as "25s", got {type(value).__name__}')
    if not isinstance(value, str):
        if value == 0:
            return 0.0
        raise ValueError(f'a duration needs a unit, as in "{value}s", got the number {value}')
    return _parse_text(value)


def _parse_text(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    rest = text.removeprefix("-") if sign < 0 else text.removeprefix("+")
    if rest == "0":
        return 0.0
    if _NUMBER.fullmatch(rest):
        raise ValueError(f'a duration needs a unit, as in "{text}s", got "{text}"')
    total = Fraction(0)
    position = 0
    while match := _PART.match(rest, position):
        total += Fraction("0" + match["number"]) * NANOSECONDS[match["unit"]]
        position = match.end()
    if not rest or position != len(rest):
        raise ValueError(f'expected a duration such as "25s" or "1h30m", got "{text}"')
    if total > MAX_NANOSECONDS:
        raise ValueError(f'a duration ends at about 292 years, got "{text}"')
    return sign * int(total) / NANOSECONDS["s"]


def format_duration(seconds: float) -> str:
    """
    Print seconds canonically: ``0s``, ``1.5ms``, ``25s``, ``1m0s``, ``720h0m0s``.

    Args:
        seconds: Rounded to whole nanoseconds.

    """
    total = round(Fraction(seconds) * NANOSECONDS["s"])
    sign = "-" if total < 0 else ""
    total = abs(total)
    if total == 0:
        return "0s"
    for unit, larger in (("ns", "us"), ("us", "ms"), ("ms", "s")):
        if total < NANOSECONDS[larger]:
            shown = "\N{MICRO SIGN}s" if unit == "us" else unit
            return f"{sign}{_decimal(total, NANOSECONDS[unit])}{shown}"
    minutes, rest = divmod(total, NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    shown_seconds = _decimal(rest, NANOSECONDS["s"])
    if hours:
        return f"{sign}{hours}h{minutes}m{shown_seconds}s"
    if minutes:
        return f"{sign}{minutes}m{shown_seconds}s"
    return f"{sign}{shown_seconds}s"


def _decimal(amount: int, unit: int) -> str:
    """Divide and print without trailing zeros; ``unit`` is a power of ten."""
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
