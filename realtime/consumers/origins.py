"""Which web pages may connect: the ``Origin`` header against ``client.allowed_origins``."""

from __future__ import annotations

import fnmatch
import functools
import re


def is_origin_allowed(origin: str | None, allowed: tuple[str, ...]) -> bool:
    """
    Decide on a request by its ``Origin``.

    Without one (no browser) it is allowed; with one, a pattern must match it. In a pattern ``*`` is any run of
    characters, ``?`` one, ``[ab]`` one of a set and ``{a,b}`` an alternative.
    """
    if not origin:
        return True
    if allowed == ("*",):
        return True
    return any(_pattern(each).fullmatch(origin.lower()) for each in allowed)


@functools.lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    alternatives = "|".join(fnmatch.translate(each) for each in _expand(glob))
    return re.compile(alternatives)


def _expand(glob: str) -> list[str]:
    """Write out the first ``{a,b}`` of a pattern, and so on."""
    found = re.search(r"\{([^{}]*)\}", glob)
    if found is None:
        return [glob]
    before, after = glob[: found.start()], glob[found.end() :]
    return [each for choice in found[1].split(",") for each in _expand(f"{before}{choice}{after}")]
