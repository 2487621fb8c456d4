"""Tags filters: the grammar, the truth table, and that equal filters are one."""

from __future__ import annotations

import gc
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocol.messages import FilterNode
from realtime.session.tags_filter import MAX_DEPTH, MAX_NODES, FilterError, both, make_filter


def leaf(cmp: str, val: str = "", vals: list[str] | None = None, key: str = "k") -> FilterNode:
    return FilterNode(key=key, cmp=cmp, val=val, vals=vals or [])


YES, NO = leaf("ex", key="there"), leaf("ex", key="missing")
TAGS = {"there": "1"}


@pytest.mark.parametrize(
    ("node", "passing", "failing"),
    [
        (leaf("eq", "a"), ["a"], ["b", "", "A", None]),
        (leaf("neq", "a"), ["b", "", None], ["a"]),
        (leaf("in", vals=["a", "b"]), ["a", "b"], ["c", None]),
        (leaf("in", vals=["", "b"]), ["", None], ["c"]),
        (leaf("nin", vals=["a"]), ["b", None], ["a"]),
        (leaf("nin", vals=["", "a"]), ["b"], ["a", "", None]),
        (leaf("ex"), ["a", ""], [None]),
        (leaf("nex"), [None], ["a", ""]),
        (leaf("sw", "ab"), ["ab", "abc"], ["a", "cab", "AB", None]),
        (leaf("ew", "ab"), ["ab", "cab"], ["abc", None]),
        (leaf("ct", "ab"), ["ab", "cabc"], ["ac", None]),
        (leaf("gt", "1.5"), ["1.51", "2", "+2", "0002"], ["1.5", "1", "a", "", "1e3", " 2", None]),
        (leaf("gte", "1.5"), ["1.5", "1.50", "2"], ["1.4999999999999999999", None]),
        (leaf("lt", "-1"), ["-1.0000000000000000001", "-2"], ["-1", "0", "-.5", "-5.", None]),
        (leaf("lte", "10"), ["10", "-10", "9.9"], ["10.1", "0x1", "inf", "nan", None]),
        (leaf("gt", "9" * 30), ["1" + "0" * 30], ["9" * 30, "1" + "0" * 200]),
        (leaf("gt", "0"), ["0.1234567890123456789"], ["0.12345678901234567890", "٣"]),
        (leaf("gt", "no number"), [], ["1", "no number", "z", None]),
    ],
)
def test_each_comparison_says_what_the_protocol_says(node, passing, failing):
    """With the tag, with another value, without the tag."""
    found = make_filter(node)

    for value, expected in [(v, True) for v in passing] + [(v, False) for v in failing]:
        tags = {"other": "x"} if value is None else {"k": value, "other": "x"}
        assert found.passes_tags(tags) is expected, value
    assert found.passes_tags(None) is found.passes_tags({})


@pytest.mark.parametrize(
    ("op", "nodes", "expected"),
    [
        ("and", [YES], True),
        ("and", [YES, NO], False),
        ("or", [NO], False),
        ("or", [NO, YES], True),
        ("not", [YES], False),
        ("not", [NO], True),
        ("and", [YES, FilterNode(op="or", nodes=[NO, FilterNode(op="not", nodes=[NO])])], True),
    ],
)
def test_nodes_are_joined(op, nodes, expected):
    """Of any depth; what else stands on a joining node is ignored, as are nodes on a leaf."""
    joined = FilterNode(op=op, nodes=nodes, key="ignored", cmp="neither", val="nor")

    assert make_filter(joined).passes_tags(TAGS) is expected
    assert make_filter(FilterNode(key="there", cmp="ex", nodes=[NO])).passes_tags(TAGS)


@pytest.mark.parametrize(
    "node",
    [
        FilterNode(),
        FilterNode(op="xor", nodes=[YES]),
        FilterNode(op="AND", nodes=[YES]),
        FilterNode(op="and"),
        FilterNode(op="or"),
        FilterNode(op="not"),
        FilterNode(op="not", nodes=[YES, YES]),
        FilterNode(op="and", nodes=[YES, FilterNode(op="not")]),
        leaf("like", "a"),
        leaf("eq"),
        leaf("eq", "a", ["b"]),
        leaf("eq", "a", key=""),
        leaf("gt"),
        leaf("in"),
        leaf("in", "a", ["a"]),
        leaf("in", vals=["a"], key=""),
        leaf("nin", "a"),
        leaf("ex", "a"),
        leaf("nex", vals=["a"]),
    ],
)
def test_what_is_malformed_is_refused(node):
    """Every row of the grammar."""
    with pytest.raises(FilterError):
        make_filter(node)


def test_depth_and_size_are_bounded():
    """As much as is allowed passes, one more does not."""

    def nested(depth):
        node = YES
        for _ in range(depth - 1):
            node = FilterNode(op="not", nodes=[node])
        return node

    make_filter(nested(MAX_DEPTH))
    make_filter(FilterNode(op="or", nodes=[YES] * (MAX_NODES - 1)))
    for node in (nested(MAX_DEPTH + 1), FilterNode(op="or", nodes=[YES] * MAX_NODES)):
        with pytest.raises(FilterError):
            make_filter(node)


def test_equal_filters_are_one_and_go_with_the_last_subscriber():
    """Also where values are listed in another order; two joined ones too."""
    first, second = make_filter(leaf("in", vals=["a", "b"])), make_filter(leaf("eq", "x"))

    assert make_filter(leaf("in", vals=["b", "a", "b"])) is first
    assert make_filter(leaf("eq", "y")) is not second
    assert both(first, second) is both(first, second)
    assert (both(None, first), both(first, None), both(None, None)) == (first, first, None)
    assert both(first, first) is first
    assert both(first, second).passes_tags({"k": "x"}) is False

    key = second.key
    del second
    gc.collect()
    again = make_filter(leaf("eq", "x"))
    assert again.key == key


@given(numbers=st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=6), min_size=2))
def test_numbers_compare_as_decimals(numbers):
    """Whatever their size and sign; no float is in between."""
    texts = [f"{number:f}" for number in numbers]

    for (one, text), (other, bound) in itertools.pairwise(zip(numbers, texts, strict=True)):
        assert make_filter(leaf("gt", bound)).passes_tags({"k": text}) is (one > other)
        assert make_filter(leaf("lte", bound)).passes_tags({"k": text}) is (one <= other)
