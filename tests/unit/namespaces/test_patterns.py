"""The dialect of channel_regex: Go's, not Python's."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.namespaces.patterns import ChannelPattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("b", "abc", True),  # searched, not anchored
        ("^[a-z\u00e9]+$", "\u00e9", True),
        ("^[a-z\u00e9]+$", "ABC", False),
        ("^a$", "a\n", False),  # Python's $ would match
        (r"^a\z", "a", True),
        (r"^a\z", "a\n", False),
        ("(?m)^b$", "a\nb\nc", True),
        (r"^\d$", "\u0661", False),  # Python's \d would match
        (r"^\w$", "\u00e9", False),  # Python's \w would match
        (r"^\pL$", "\u00e9", True),
        (r"^\x{e9}$", "\u00e9", True),
        ("^.$", "\u00e9", True),  # a character, not a byte
        ("^.$", "\n", False),
        ("(?s)^.$", "\n", True),
        ("(?i)^a$", "A", True),
        ("^(?P<n>a)$", "a", True),
        ("^(?<n>a)$", "a", True),
        ("^[[:alpha:]]+$", "ab", True),
        ("^[[:alpha:]]+$", "a:", False),
        (r"^\Qa.b\E$", "a.b", True),
        (r"^\Qa\C\E$", r"a\C", True),  # a literal
        (r"^\\C$", r"\C", True),  # a backslash and a C
        (r"^\\\QC\E$", r"\C", True),
        ("", "anything", True),
        ("a", "\ud800a", False),  # no UTF-8: never found
        ("^$", "", True),
    ],
)
def test_search(pattern, subject, expected):
    """What is found, above all where Python's re differs."""
    assert ChannelPattern(pattern).is_found_in(subject) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "a)",
        "[a",
        "*",
        "a**",
        "a++",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        r"(a)\1",
        "(?P=n)",
        "(?>a)",
        "(?(1)a|b)",
        "(?#comment)",
        r"a\Z",
        r"\C",
        r"a\\\C",
        r"\Qa\E\C",
        "a{1001}",
        r"\u00e9",
        "(?x)a",
        "\ud800",
        r"\pX",
        "((a{100}){100}){100}",
    ],
)
def test_what_go_refuses_is_refused(pattern):
    """Look-around, back-references, what only Python knows, and what is too large."""
    with pytest.raises(PatternError) as caught:
        ChannelPattern(pattern)

    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_compiling_writes_nothing(capfd):
    """RE2 would log errors to the process's stderr."""
    with pytest.raises(PatternError):
        ChannelPattern("(")

    assert capfd.readouterr() == ("", "")


def test_a_hostile_subject_takes_linear_time():
    """A backtracking engine would need longer than the universe has."""
    pattern = ChannelPattern("^(a+)+$")
    begin = time.perf_counter()

    assert not pattern.is_found_in("a" * 60_000 + "!")

    assert time.perf_counter() - begin < 10


@given(subject=st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_searched(subject):
    """
    Names come from clients: none raises.
    """
    assert ChannelPattern(r"^[\s\S]*$").is_found_in(subject) is not any(
        "\ud800" <= c <= "\udfff" for c in subject
    )


@given(text=st.text(st.sampled_from(r"\CQEab[]^$(){}*+?|.1")))
def test_any_text_compiles_or_is_refused(text):
    """
    Whatever an operator types, the outcome is a pattern or a PatternError.
    """
    try:
        pattern = ChannelPattern(text)
    except PatternError as error:
        assert str(error)  # noqa: PT017 -- both outcomes are right
    else:
        assert pattern.text == text
        assert pattern.is_found_in("ab") in (True, False)
