"""
Take channel names apart.

A name is any ``str``, chosen by an attacker: nothing in here raises, and the work is linear in the name's length.
"""

from __future__ import annotations

from typing import NamedTuple

from realtime.namespaces.options import ChannelRules


_NAMESPACE_CHARACTERS = frozenset(
    "-_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)
_NAMESPACE_MIN_LENGTH = 2


class NameParts(NamedTuple):
    """
    A name, taken apart.

    ``rest`` is what ``channel_regex`` is searched in: the text after the namespace, or the *whole* name (a private
    prefix included) where there is no namespace boundary in it.
    """

    namespace: str
    rest: str
    is_private: bool


def split_name(name: str, rules: ChannelRules) -> NameParts:
    """Find the namespace: the text before the first boundary, after one leading private prefix is taken off."""
    prefix = rules.private_prefix
    is_private = bool(prefix) and name.startswith(prefix)
    if not rules.namespace_boundary:
        return NameParts("", name, is_private)
    bare = name[len(prefix) :] if is_private else name
    namespace, boundary, rest = bare.partition(rules.namespace_boundary)
    if not boundary:
        return NameParts("", name, is_private)
    return NameParts(namespace, rest, is_private)


def has_user_boundary(name: str, rules: ChannelRules) -> bool:
    """Say whether the name lists users, if its namespace lets it."""
    return bool(rules.user_boundary) and rules.user_boundary in name


def listed_users(name: str, rules: ChannelRules) -> tuple[str, ...]:
    """Return the user ids after the last user boundary, exactly as they stand; none where there is no boundary."""
    if not has_user_boundary(name, rules):
        return ()
    users = name.rpartition(rules.user_boundary)[2]
    return tuple(users.split(rules.user_separator)) if rules.user_separator else (users,)


def is_too_long(name: str, rules: ChannelRules) -> bool:
    """Say whether the name has more bytes of UTF-8 than allowed; a lone surrogate counts as three."""
    limit = rules.max_length
    if limit <= 0:
        return False
    if name.isascii() or len(name) > limit:
        return len(name) > limit
    return len(name.encode("utf-8", "surrogatepass")) > limit


def is_namespace_name(name: str) -> bool:
    """Say whether a namespace may be called so: two or more of ASCII letters, digits, ``-``, ``_`` and ``.``."""
    return len(name) >= _NAMESPACE_MIN_LENGTH and _NAMESPACE_CHARACTERS.issuperset(name)


def personal_channel(user: str, namespace: str, rules: ChannelRules) -> str:
    """Return the name of a user's personal channel."""
    personal = f"{rules.user_boundary}{user}"
    return f"{namespace}{rules.namespace_boundary}{personal}" if namespace else personal
