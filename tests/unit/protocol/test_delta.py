"""Publications for subscribers with deltas: chains of patches, and that equal ones are made once."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from realtime.protocol import delta, fossil
from realtime.protocol.delta import Patches, as_chain, as_document
from realtime.protocol.json_codec import InvalidPayloadError
from realtime.protocol.messages import Publication


TEXTS = [b'{"text": "%b", "n": %d}' % ("äöü€ ".encode() * 20, number) for number in range(5)]


def pubs(*texts: bytes) -> list[Publication]:
    return [Publication(Raw(text), offset=number) for number, text in enumerate(texts, start=1)]


@pytest.mark.parametrize("is_json", [True, False])
def test_a_chain_gives_every_document_in_turn(is_json: bool) -> None:
    """The first is whole, and each other one shorter than the document that it makes of the one before."""
    chain, saved = as_chain(pubs(*TEXTS, b"1", TEXTS[0]), Patches(), is_json=is_json)

    document = b""
    documents = []
    for each in chain:
        text = json.loads(bytes(each.data)).encode() if is_json else bytes(each.data)
        document = fossil.apply(document, text) if each.delta else text
        documents.append(document)
    assert documents == [*TEXTS, b"1", TEXTS[0]]
    assert [each.delta for each in chain] == [False, True, True, True, True, False, False]
    assert [each.offset for each in chain] == [1, 2, 3, 4, 5, 6, 7]
    assert saved > 4 * len(TEXTS[0]) * 0.8


@pytest.mark.parametrize("is_json", [True, False])
def test_the_epoch_of_a_stream_s_first_stays_with_its_bytes(is_json: bool) -> None:
    """A document that became a string is without it, as Centrifugo's is."""
    first = Publication(Raw(b"1"), offset=1, epoch="abcdefgh")

    assert as_document(first, is_json=is_json).epoch == ("" if is_json else "abcdefgh")


def test_what_is_no_json_is_no_part_of_it() -> None:
    """Whole or as a patch."""
    for texts in ([b"{"], [TEXTS[0], TEXTS[0] + b"}"]):
        with pytest.raises(InvalidPayloadError):
            as_chain(pubs(*texts), Patches(), is_json=True)


def test_equal_patches_are_made_once_and_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also that there is none shorter is remembered."""
    made = []
    create = fossil.create_shorter
    monkeypatch.setattr(
        delta.fossil, "create_shorter", lambda *pair: made.append(pair) or create(*pair)
    )
    patches = Patches(max_bytes=700)

    for _ in range(3):
        assert patches.between(TEXTS[0], TEXTS[1]) == create(TEXTS[0], TEXTS[1])
        assert patches.between(TEXTS[0], b"1") is None
    assert len(made) == 2

    patches.between(TEXTS[1], TEXTS[2])
    patches.between(TEXTS[0], TEXTS[1])
    assert len(made) == 4
