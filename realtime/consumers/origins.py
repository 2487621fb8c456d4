"""Which web pages may connect: the ``Origin`` header against ``client.allowed_origins``."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from realtime.namespaces.globs import GlobError, compile_glob


logger = logging.getLogger(__name__)


def is_origin_allowed(origin: str | None, allowed: tuple[str, ...]) -> bool:
    """
    Decide on a request by its ``Origin``.

    Without one (no browser) it is allowed; with one, a glob must match it (``namespaces/globs.py`` says how). Globs
    are not lower-cased, origins are.
    """
    if not origin or allowed == ("*",):
        return True
    return any(_matcher(glob)(origin.lower()) for glob in allowed)


@functools.lru_cache(maxsize=256)
def _matcher(glob: str) -> Callable[[str], object]:
    try:
        return compile_glob(glob)
    except GlobError as error:
        logger.warning(
            "client.allowed_origins: %r is no pattern and matches nothing: %s", glob, error
        )
        return lambda _origin: False
