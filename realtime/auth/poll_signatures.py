"""
Sign and verify which keys of a shared poll a user may track.

A signature is ``iat:exp:mac``: two Unix times in decimal (``exp`` 0 is never) and the lower-case hexadecimal HMAC-SHA256 of five fields
with NUL between them: ``iat``, ``exp``, user, channel, and the hexadecimal SHA-256 of the keys with NUL between them, in
the order of the request. Neither a key nor the other fields may have a NUL in them, since ``a NUL b`` would be signed
by who signed ``a`` and ``b``.

Source: the shared poll signatures of Centrifugo v6.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from realtime.auth.tokens import TokenExpired, TokenInvalid


GRACE = (
    5.0  # seconds that an expired signature is still taken, so that its refresh may be under way
)
_FORM = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PollSecrets:
    """
    What signatures are made with.

    ``previous`` is taken too, where it is set; with ``previous_valid_until`` (Unix seconds, 0 for no limit) only for what
    was signed until then.
    """

    current: str
    previous: str = ""
    previous_valid_until: int = 0


def sign_batch(
    secret: str, *, issued_at: int, expire_at: int, user: str, channel: str, keys: Sequence[str]
) -> str:
    """
    Sign that a user may track these keys together.

    Args:
        secret: ``shared_poll.hmac_secret_key``.
        issued_at: Unix seconds.
        expire_at: Unix seconds, 0 for never.
        user: Its id; empty for anonymous clients.
        channel: Of the subscription.
        keys: In the order in which the client sends them.

    Raises:
        ValueError: There is no secret, a key is empty, or something has a NUL in it.

    """
    if not secret:
        message = "there is no key to sign with: set shared_poll.hmac_secret_key"
        raise ValueError(message)
    if not _is_clean(user, channel, keys):
        message = "keys must not be empty, and neither they nor the user nor the channel may have a NUL in them"
        raise ValueError(message)
    mac = _mac(secret, str(issued_at), str(expire_at), user, channel, keys)
    return f"{issued_at}:{expire_at}:{mac}"


def verify_batch(
    signature: str,
    secrets: PollSecrets,
    *,
    user: str,
    channel: str,
    keys: Sequence[str],
    now: float,
) -> int:
    """
    Return until when the keys may be tracked: Unix seconds, 0 for ever. It may be past by up to ``GRACE``.

    Raises:
        TokenInvalid: It is malformed, or signs something else.
        TokenExpired: It is past its time.

    """
    found = _FORM.fullmatch(signature)
    if found is None or not _is_clean(user, channel, keys):
        message = "the signature is malformed"
        raise TokenInvalid(message)
    issued_at, expire_at, mac = found.groups()
    if not _is_signed(mac, secrets, issued_at, expire_at, user, channel, keys):
        message = "the signature is not ours, or for something else"
        raise TokenInvalid(message)
    until = int(expire_at)
    if until and until + GRACE < now:
        message = "the signature has expired"
        raise TokenExpired(message)
    return until


def _is_signed(
    mac: str,
    secrets: PollSecrets,
    issued_at: str,
    expire_at: str,
    user: str,
    channel: str,
    keys: Sequence[str],
) -> bool:
    fields = (issued_at, expire_at, user, channel, keys)
    if hmac.compare_digest(mac, _mac(secrets.current, *fields)):
        return True
    if not secrets.previous:
        return False
    is_previous = hmac.compare_digest(mac, _mac(secrets.previous, *fields))
    limit = secrets.previous_valid_until
    return is_previous and (limit <= 0 or int(issued_at) <= limit)


def _mac(
    secret: str, issued_at: str, expire_at: str, user: str, channel: str, keys: Sequence[str]
) -> str:
    digest = hashlib.sha256(_bytes("\0".join(keys))).hexdigest()
    signed = f"{issued_at}\0{expire_at}\0{user}\0{channel}\0{digest}"
    return hmac.new(secret.encode(), _bytes(signed), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_clean(user: str, channel: str, keys: Sequence[str]) -> bool:
    return "\0" not in user and "\0" not in channel and all(key and "\0" not in key for key in keys)
