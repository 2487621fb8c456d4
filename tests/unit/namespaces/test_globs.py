"""Globs over channel names."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.namespaces.globs import GlobError, compile_glob


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", [""], ["a"]),
        ("a", ["a"], ["", "A", "aa", "a\n"]),
        ("*", ["", "a", "a:b:c", "a\nb"], []),
        ("**", ["", "ab"], []),
        ("chat:*", ["chat:", "chat:a:b"], ["chat", "xchat:a"]),
        ("*:a*b", [":ab", "x:y:a-b", ":abab"], ["ab", ":aba"]),
        ("a?c", ["abc", "a:c", "aéc"], ["ac", "abbc"]),
        ("[abc]x", ["ax", "cx"], ["dx", "x"]),
        ("[!abc]x", ["dx", ":x"], ["ax", "x"]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[a-c0-9_]", ["b", "5", "_"], ["d"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[\\]^]", ["]", "^"], ["\\", "a"]),
        ("[a^]", ["a", "^"], ["b"]),
        ("{a,b}", ["a", "b"], ["ab", "", "{a,b}"]),
        ("{,x}y", ["y", "xy"], ["x"]),
        ("{chat,news}:{1,2*}", ["chat:1", "news:2:3"], ["chat:3", "chat:"]),
        ("a{b,c{d,e}}f", ["abf", "acdf", "acef"], ["acf", "abdf"]),
        ("a,b}", ["a,b}"], ["a", "b"]),
        ("a]", ["a]"], ["a"]),
        ("\\*\\?\\[\\{\\\\", ["*?[{\\"], ["aa[{\\"]),
        ("{\\,,\\}}", [",", "}"], ["\\"]),
        (".+$^()|", [".+$^()|"], ["a"]),
    ],
)
def test_globs_match(pattern: str, matching: list[str], other: list[str]) -> None:
    """A glob is about the whole name, and separators are characters like any other."""
    is_match = compile_glob(pattern)

    assert [name for name in matching if not is_match(name)] == []
    assert [name for name in other if is_match(name)] == []


@pytest.mark.parametrize(
    "pattern",
    ["[", "[!", "[]", "[!]", "[a", "[a-", "[\\", "[z-a]", "{", "{a", "{a,{b}", "\\", "a\\"],
)
def test_malformed_globs_are_refused(pattern: str) -> None:
    """What isn't closed, or says nothing, is an error and no literal."""
    with pytest.raises(GlobError):
        compile_glob(pattern)


@pytest.mark.parametrize("pattern", ["{a,b}" * 20, "{" * 4000, "a" * 5000, f"{{{',' * 400}}}"])
def test_a_glob_can_not_cost_much_to_compile(pattern: str) -> None:
    """Alternatives, depth and length are bounded."""
    with pytest.raises(GlobError):
        compile_glob(pattern)


def test_a_glob_can_not_cost_much_to_match() -> None:
    """Where a backtracking matcher would need 10**14 steps, there are some thousand."""
    steps = compile_glob("*a" * 40 + "b")

    assert not steps("a" * 255)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_without_sets_and_braces_it_is_the_shell_s_glob(pattern: str, name: str) -> None:
    """The standard library's translation agrees."""
    expected = re.fullmatch(fnmatch.translate(pattern), name) is not None

    assert bool(compile_glob(pattern)(name)) is expected
