"""
Which publications a subscriber wants, by their tags.

A filter is a tree of comparisons, joined by ``and``, ``or`` and ``not``. It is checked once, at subscribe time, and
compiled to a function; equal filters of any number of subscribers are one object, which is how the hub comes to
evaluate each once per publication.

Numbers are exact decimals, never floats. Centrifugo has no limits of depth and size; those here keep one filter from costing
every publication of its channel more than some 100 µs.

Source: ``FilterNode`` of the client protocol.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol


class Node(Protocol):
    """What a filter is made of (``realtime.protocol.messages.FilterNode``)."""

    @property
    def op(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def cmp(self) -> str: ...
    @property
    def val(self) -> str: ...
    @property
    def vals(self) -> Sequence[str]: ...
    @property
    def nodes(self) -> Sequence[Node]: ...


MAX_DEPTH = 32
MAX_NODES = 500

Tags = Mapping[str, str]
Predicate = Callable[[Tags], bool]
NO_TAGS: Tags = {}
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]{1,19})?", re.ASCII)
_LONGEST_NUMBER = 200


class FilterError(ValueError):
    """A filter is malformed, or larger than is good; the text says where."""


class TagsFilter:
    """
    A compiled filter.

    Attributes:
        key: The filter as a nested tuple; equal filters have equal keys, and then they are one object.
        passes: Say whether a publication with these tags is wanted.

    """

    __slots__ = ("__weakref__", "key", "passes")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.passes: Predicate = _compile(key)

    def passes_tags(self, tags: Tags | None) -> bool:
        """Say whether a publication with these tags, or with none, is wanted."""
        return self.passes(tags or NO_TAGS)


# ("and" | "or" | "not", *keys of the nodes), or (cmp, tag, value or values in order)
_Key = tuple[object, ...]
_known: weakref.WeakValueDictionary[_Key, TagsFilter] = weakref.WeakValueDictionary()


def make_filter(node: Node) -> TagsFilter:
    """
    Check a filter and return it compiled.

    Raises:
        FilterError: It is malformed, deeper than ``MAX_DEPTH``, or has more than ``MAX_NODES`` nodes.

    """
    budget = [MAX_NODES]
    return _known_filter(_key_of(node, 1, budget))


def both(first: TagsFilter | None, second: TagsFilter | None) -> TagsFilter | None:
    """Join two filters; ``first`` is asked first."""
    if first is None or second is None or first is second:
        return first or second
    return _known_filter(("and", first.key, second.key))


def _known_filter(key: _Key) -> TagsFilter:
    known = _known.get(key)
    if known is None:
        known = _known[key] = TagsFilter(key)
    return known


# --- checking -------------------------------------------------------------------------------------------


def _key_of(node: Node, depth: int, budget: list[int]) -> _Key:
    """Check a node and what is below it; what means the same has the same key."""
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        message = f"more than {MAX_DEPTH} levels or {MAX_NODES} nodes"
        raise FilterError(message)
    if not node.op:
        return _leaf_of(node)
    if node.op not in ("and", "or", "not"):
        message = f"unknown op {node.op!r}"
        raise FilterError(message)
    count = len(node.nodes)
    if count != 1 if node.op == "not" else not count:
        message = f"{node.op!r} has {count} nodes"
        raise FilterError(message)
    return (node.op, *(_key_of(each, depth + 1, budget) for each in node.nodes))


def _leaf_of(node: Node) -> _Key:
    takes_values = node.cmp in _OF_VALUES
    takes_value = node.cmp in _OF_VALUE
    if not (takes_value or takes_values or node.cmp in _OF_KEY):
        message = f"unknown cmp {node.cmp!r}"
        raise FilterError(message)
    if bool(node.val) != takes_value or bool(node.vals) != takes_values:
        wanted = "val" if takes_value else "vals" if takes_values else "neither val nor vals"
        message = f"{node.cmp!r} takes {wanted}"
        raise FilterError(message)
    if not node.key and (takes_value or takes_values):
        message = f"{node.cmp!r} has no key"
        raise FilterError(message)
    if takes_values:
        return (node.cmp, node.key, tuple(sorted(set(node.vals))))
    return (node.cmp, node.key, node.val)


# --- compiling ------------------------------------------------------------------------------------------


def _compile(key: _Key) -> Predicate:
    name = key[0]
    if name == "and":
        return _all([_compile(each) for each in _below(key)])
    if name == "or":
        return _any([_compile(each) for each in _below(key)])
    if name == "not":
        negated = _compile(_below(key)[0])
        return lambda tags: not negated(tags)
    _, tag, operand = key
    assert isinstance(name, str)
    assert isinstance(tag, str)
    if isinstance(operand, tuple):
        return _OF_VALUES[name](tag, frozenset(operand))
    assert isinstance(operand, str)
    return _OF_VALUE[name](tag, operand) if name in _OF_VALUE else _OF_KEY[name](tag)


def _below(key: _Key) -> list[_Key]:
    return [each for each in key[1:] if isinstance(each, tuple)]


def _all(predicates: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for each in predicates:  # noqa: SIM110 -- all() over a generator is twice the price
            if not each(tags):
                return False
        return True

    return passes


def _any(predicates: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for each in predicates:  # noqa: SIM110 -- as above
            if each(tags):
                return True
        return False

    return passes


def _in(tag: str, values: frozenset[str]) -> Predicate:
    return lambda tags: tags.get(tag, "") in values


def _not_in(tag: str, values: frozenset[str]) -> Predicate:
    return lambda tags: tags.get(tag, "") not in values


def _equal(tag: str, value: str) -> Predicate:
    return lambda tags: tags.get(tag) == value


def _not_equal(tag: str, value: str) -> Predicate:
    return lambda tags: tags.get(tag) != value


def _starts_with(tag: str, value: str) -> Predicate:
    # Values are not empty, so that a tag that is missing has no beginning, end or part.
    return lambda tags: tags.get(tag, "").startswith(value)


def _ends_with(tag: str, value: str) -> Predicate:
    return lambda tags: tags.get(tag, "").endswith(value)


def _contains(tag: str, value: str) -> Predicate:
    return lambda tags: value in tags.get(tag, "")


def _exists(tag: str) -> Predicate:
    return lambda tags: tag in tags


def _is_missing(tag: str) -> Predicate:
    return lambda tags: tag not in tags


def _numeric(holds: Callable[[Decimal, Decimal], bool]) -> Callable[[str, str], Predicate]:
    def compare(tag: str, value: str) -> Predicate:
        bound = _number(value)
        if bound is None:
            return lambda _: False

        def passes(tags: Tags) -> bool:
            number = _number(tags.get(tag, ""))
            return number is not None and holds(number, bound)

        return passes

    return compare


@functools.lru_cache(maxsize=4096)
def _number(text: str) -> Decimal | None:
    """Read a decimal; many filters look at the same tag, hence the cache."""
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text)


_OF_KEY: Mapping[str, Callable[[str], Predicate]] = {"ex": _exists, "nex": _is_missing}
_OF_VALUES: Mapping[str, Callable[[str, frozenset[str]], Predicate]] = {"in": _in, "nin": _not_in}
_OF_VALUE: Mapping[str, Callable[[str, str], Predicate]] = {
    "eq": _equal,
    "neq": _not_equal,
    "sw": _starts_with,
    "ew": _ends_with,
    "ct": _contains,
    "gt": _numeric(lambda number, bound: number > bound),
    "gte": _numeric(lambda number, bound: number >= bound),
    "lt": _numeric(lambda number, bound: number < bound),
    "lte": _numeric(lambda number, bound: number <= bound),
}
