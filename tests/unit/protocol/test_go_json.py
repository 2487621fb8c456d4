"""Reading JSON as Go does."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from realtime.protocol.go_json import MalformedJson, mend, normalise, split_values


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """Something nested."""

    number: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    """One field of each kind."""

    skip: str = ""
    data: Raw = Raw(b"")
    tags: dict[str, str] | None = None
    names: list[str] = []
    inner: Inner | None = None
    many: list[Inner | None] = []
    members: dict[str, Inner] | None = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"null", b"{}"),
        (b" { } ", b"{}"),
        (b'{"SKIP":"a"}', b'{"skip":"a"}'),
        ('{"\u017fKIP":"a"}'.encode(), b'{"skip":"a"}'),
        (b'{"s\\u006bip":"a"}', b'{"skip":"a"}'),
        (b'{"skip":null,"inner":null,"many":null}', b"{}"),
        (b'{"skip":"a","Skip":null}', b'{"skip":"a"}'),
        (b'{"skip":"a","Skip":"b"}', b'{"skip":"a","skip":"b"}'),
        (b'{"other":{"skip":[1,{"x":null}]},"data": [ 1.0 , null ]}', b'{"data":[ 1.0 , null ]}'),
        (b'{"data":null}', b'{"data":null}'),
        (b'{"tags":{"A":null,"b":"x"}}', b'{"tags":{"A":"","b":"x"}}'),
        (b'{"names":["a",null , "b"]}', b'{"names":["a","","b"]}'),
        (b'{"inner":{"NUMBER":1,"x":2}}', b'{"inner":{"number":1}}'),
        (b'{"many":[{"Number":1},null,{}]}', b'{"many":[{"number":1},null,{}]}'),
        (
            b'{"members":{"Number":{"Number":1},"x":null}}',
            b'{"members":{"Number":{"number":1},"x":{}}}',
        ),
        # Of the wrong type: left for the strict decoder to refuse.
        (
            b'{"tags":[],"names":{},"inner":1,"many":"x"}',
            b'{"tags":[],"names":{},"inner":1,"many":"x"}',
        ),
        (b"[]", b"[]"),
    ],
)
def test_normalise(text: bytes, expected: bytes) -> None:
    """Names become exact, unknown ones and nulls go, payloads stay as they are."""
    assert normalise(Outer, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"{} {}",
        b"{}x",
        b"nul",
        b"NaN",
        b'{"a":Infinity}',
        b'"\n"',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """Unknown fields are read too, so they can't hide anything malformed."""
    with pytest.raises(MalformedJson):
        normalise(Outer, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'"\\ud800"', b'"\\ufffd"'),
        (b'"\\uDFFF\\uD83D"', b'"\\ufffd\\ufffd"'),
        (b'"\\ud83d\\ude00"', b'"\\ud83d\\ude00"'),
        (b'"\\\\ud800"', b'"\\\\ud800"'),
        (b'"\\ud800\\\\ude00"', b'"\\ufffd\\\\ude00"'),
        (b'"\\u00e9"', b'"\\u00e9"'),
        (b'"\xff\xc3\xa9"', '"\ufffdé"'.encode()),
        (b"\\u", b"\\u"),
    ],
)
def test_mend(text: bytes, expected: bytes) -> None:
    """Only what no reader of UTF-8 could take is replaced."""
    assert mend(text) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=5), st.sampled_from(["", " ", "\n", "\r\n\t"]), st.booleans())
def test_a_stream_is_cut_where_its_values_end(
    values: list[object], gap: str, is_ascii: bool
) -> None:
    """Whatever the values are, and whether or not there is white space between them."""
    # Between two scalars something has to stand.
    texts = [json.dumps([value], ensure_ascii=is_ascii).encode() for value in values]

    assert split_values(gap.encode().join(texts)) == texts


@given(st.dictionaries(st.sampled_from(["skip", "Skip", "other"]), st.text()), json_values)
def test_the_strict_decoder_reads_what_was_rewritten(names: dict[str, str], data: object) -> None:
    """The result is JSON of the message, with the last value of each name."""
    text = json.dumps({**names, "DATA": data}).encode()

    read = msgspec.json.decode(normalise(Outer, text), type=Outer)

    known = [value for name, value in names.items() if name != "other"]
    assert read.skip == (known[-1] if known else "").encode("utf-8", "replace").decode()
    assert json.loads(bytes(read.data)) == data
