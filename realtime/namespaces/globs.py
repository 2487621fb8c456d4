"""
Globs over channel names, as the server API's ``channels`` takes them.

``*`` is any run of characters (separators too), ``?`` one character, ``[abc]``, ``[!abc]`` and ``[a-z]`` one of a
set, ``{x,y}`` alternatives (they nest), ``\\`` takes the next character as it stands.

A glob may come from anybody with an API key, so its cost is bounded: alternatives are multiplied out, at most
256 of them, and in what remains each ``*`` but the last gives back nothing (the leftmost match of what follows it is as
good as any other), so a name is matched in time proportional to its length times the glob's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable


_MAX_ALTERNATIVES = 256
_MAX_LENGTH = 4096
_STAR = "*"  # no other token: a literal star is escaped


class GlobError(ValueError):
    """The pattern is malformed, or too long."""


@functools.lru_cache(maxsize=64)
def compile_glob(pattern: str) -> Callable[[str], object]:
    """
    Return a function that tells (by what it returns being true) whether a name matches.

    Raises:
        GlobError: A bracket or brace is not closed, a set is empty, a backslash ends the pattern, or it is too long.

    """
    if len(pattern) > _MAX_LENGTH:
        raise GlobError(f"read {len(pattern)} characters, expected at most {_MAX_LENGTH}")
    try:
        alternatives, _end = _parse(pattern, 0, depth=0)
    except RecursionError as error:
        raise GlobError("nested too deeply") from error
    expression = "|".join(map(_expression, alternatives))
    return re.compile(expression, re.DOTALL).fullmatch


def _parse(pattern: str, position: int, depth: int) -> tuple[list[list[str]], int]:
    """Read up to the brace that closes this level; return the alternatives as lists of tokens, and the place after."""
    finished: list[list[str]] = []
    current: list[list[str]] = [[]]
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "{":
            inner, position = _parse(pattern, position, depth + 1)
            current = [[*head, *tail] for head in current for tail in inner]
            _check_number(len(current))
            continue
        if depth and character == "}":
            return finished + current, position
        if depth and character == ",":
            finished += current
            _check_number(len(finished))
            current = [[]]
            continue
        token, position = _token(pattern, character, position)
        for alternative in current:
            alternative.append(token)
    if depth:
        raise GlobError("a brace is not closed")
    return current, position


def _check_number(alternatives: int) -> None:
    if alternatives > _MAX_ALTERNATIVES:
        raise GlobError(f"more than {_MAX_ALTERNATIVES} alternatives")


def _token(pattern: str, character: str, position: int) -> tuple[str, int]:
    if character == "*":
        return _STAR, position
    if character == "?":
        return ".", position
    if character == "[":
        return _character_set(pattern, position)
    if character == "\\":
        if position == len(pattern):
            raise GlobError("a backslash ends the pattern")
        character = pattern[position]
        position += 1
    return re.escape(character), position


def _character_set(pattern: str, position: int) -> tuple[str, int]:
    negation = "^" if pattern.startswith("!", position) else ""
    position += len(negation)
    members: list[str] = []
    while position < len(pattern) and pattern[position] != "]":
        low, position = _member(pattern, position)
        if pattern.startswith("-", position) and not pattern.startswith("-]", position):
            high, position = _member(pattern, position + 1)
            if high < low:
                raise GlobError(f"the range {low}-{high} is empty")
            members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append(re.escape(low))
    if position >= len(pattern):
        raise GlobError("a bracket is not closed")
    if not members:
        raise GlobError("a set is empty")
    return f"[{negation}{''.join(members)}]", position + 1


def _member(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith("\\", position):
        position += 1
    if position >= len(pattern):
        raise GlobError("a bracket is not closed")
    return pattern[position], position + 1


def _expression(tokens: list[str]) -> str:
    """Turn one alternative into a regular expression that does not backtrack over more than one star."""
    pieces: list[str] = [""]
    for token in tokens:
        if token != _STAR:
            pieces[-1] += token
        elif pieces[-1] or len(pieces) == 1:  # a run of stars is one star
            pieces.append("")
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    return first + "".join(f"(?>.*?{piece})" for piece in middle) + f".*{last}"
