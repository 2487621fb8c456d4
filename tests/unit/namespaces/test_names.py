"""Channel names: how they are taken apart, and that no text breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.namespaces.names import (
    NameParts,
    is_namespace_name,
    is_too_long,
    listed_users,
    personal_channel,
    split_name,
)
from realtime.namespaces.options import ChannelRules


RULES = ChannelRules()
# Surrogates too: JSON may carry half a pair.
any_text = st.text(st.characters(exclude_categories=()))
specials = st.text("$:#,ab\u00e9\n", max_size=12)
signs = st.sampled_from(["", "$", ":", "#", ",", "::", "ab"])


@pytest.mark.parametrize(
    ("name", "namespace", "rest", "is_private"),
    [
        ("news", "", "news", False),
        ("chat:a", "chat", "a", False),
        ("chat:a:b", "chat", "a:b", False),
        ("$chat:a", "chat", "a", True),
        ("$a", "", "$a", True),
        (":a", "", "a", False),
        ("chat:", "chat", "", False),
        ("zzz:a", "zzz", "a", False),
        ("chat:a#42", "chat", "a#42", False),
        ("$$chat:a", "$chat", "a", True),
        ("a$:b", "a$", "b", False),
        ("", "", "", False),
        ("$", "", "$", True),
        ("$:a", "", "a", True),
    ],
)
def test_a_name_is_split_at_the_first_boundary(name, namespace, rest, is_private):
    """One private prefix is taken off; without a boundary the rest is the whole name."""
    assert split_name(name, RULES) == NameParts(namespace, rest, is_private)


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        (ChannelRules(namespace_boundary=""), "chat:a", ("", "chat:a", False)),
        (ChannelRules(private_prefix=""), "$chat:a", ("$chat", "a", False)),
        (ChannelRules(namespace_boundary="/", private_prefix="!!"), "!!a/b:c", ("a", "b:c", True)),
    ],
)
def test_special_characters_are_configuration(rules, name, expected):
    """An empty value switches the feature off; a longer one is taken as a whole."""
    assert split_name(name, rules) == expected


@pytest.mark.parametrize(
    ("name", "rules", "users"),
    [
        ("lim:a#u,v", RULES, ("u", "v")),
        ("lim:a#x#u", RULES, ("u",)),
        ("lim:#u", RULES, ("u",)),
        ("lim:#", RULES, ("",)),
        ("lim:a", RULES, ()),
        ("lim:a# u,", RULES, (" u", "")),
        ("lim:a#u,v", ChannelRules(user_separator=""), ("u,v",)),
        ("lim:a#u", ChannelRules(user_boundary=""), ()),
    ],
)
def test_users_are_listed_after_the_last_boundary(name, rules, users):
    """They stand as they are, without trimming."""
    assert listed_users(name, rules) == users


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [
        ("a" * 255, 255, False),
        ("a" * 256, 255, True),
        ("\u00e9" * 127, 255, False),
        ("\u00e9" * 128, 255, True),
        ("\ud800" * 85, 255, False),
        ("\ud800" * 86, 255, True),
        ("a" * 100000, 0, False),
    ],
)
def test_length_counts_bytes(name, limit, expected):
    """The limit is on UTF-8; 0 is none."""
    assert is_too_long(name, ChannelRules(max_length=limit)) is expected


@pytest.mark.parametrize("name", ["ab", "a.b", "-_", "Z9", "a" * 200])
def test_names_that_a_namespace_may_have(name):
    """Two or more of the allowed characters."""
    assert is_namespace_name(name)


@pytest.mark.parametrize(
    "name", ["", "a", "a b", "a:b", "\u00e9\u00e9", "ab\n", "a/b", "\u0661\u0662", "$ab"]
)
def test_names_that_a_namespace_may_not_have(name):
    """Other characters, digits of other scripts and a final newline among them."""
    assert not is_namespace_name(name)


@pytest.mark.parametrize(("namespace", "expected"), [("", "#42"), ("lim", "lim:#42")])
def test_the_personal_channel_lists_its_user(namespace, expected):
    """Its name lets only this user in where the namespace is user-limited."""
    name = personal_channel("42", namespace, RULES)

    assert name == expected
    assert listed_users(name, RULES) == ("42",)


@given(name=any_text | specials, prefix=signs, boundary=signs, users=signs, separator=signs)
def test_any_text_can_be_taken_apart(name, prefix, boundary, users, separator):
    """
    Nothing raises, and nothing of the name gets lost.
    """
    rules = ChannelRules(
        private_prefix=prefix,
        namespace_boundary=boundary,
        user_boundary=users,
        user_separator=separator,
    )

    namespace, rest, is_private = split_name(name, rules)
    listed_users(name, rules)
    is_too_long(name, rules)

    if rest == name:
        assert namespace == ""
    else:
        assert (prefix if is_private else "") + namespace + boundary + rest == name
        assert boundary not in namespace
