"""
How publications look for subscribers that negotiated deltas.

On Protobuf a payload is the document's bytes or the patch's. On JSON it is a string that holds the text of either, since
the client needs the document byte by byte; that is so even where no patch is ever sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from realtime.protocol import fossil
from realtime.protocol.json_codec import check_payload
from realtime.protocol.messages import Publication


_encode = msgspec.json.Encoder().encode
_NULL = Raw(b'"null"')


def patch_between(base: Publication, publication: Publication) -> bytes | None:
    """Return what makes a publication's data of another's, if that is shorter."""
    return fossil.create_shorter(bytes(base.data), bytes(publication.data))


def as_document(publication: Publication, *, is_json: bool) -> Publication:
    """
    Return a publication with the whole document; one without data (a key was removed) gets a ``null`` on JSON.

    As in Centrifugo a JSON one is without the epoch that the first of a stream has; the client has it from its subscribe.

    Raises:
        InvalidPayloadError: It is to be JSON, and its data is not.

    """
    if not is_json:
        return publication
    if not publication.data:
        # centrifuge-js reads whatever stands there, and stops at an empty string or at nothing.
        return msgspec.structs.replace(publication, data=_NULL)
    check_payload(publication.data)
    return msgspec.structs.replace(publication, data=_string(bytes(publication.data)), epoch="")


def as_patch(publication: Publication, patch: bytes, *, is_json: bool) -> Publication:
    """
    Return a publication with a patch in place of the document.

    Raises:
        InvalidPayloadError: It is to be JSON, and its data is not.

    """
    if is_json:
        # A document that is text has patches that are text.
        check_payload(publication.data)
    data = _string(patch) if is_json else Raw(patch)
    return msgspec.structs.replace(publication, data=data, delta=True, epoch="")


class Patches:
    """
    Patches that were made, since many recover the same after a restart.

    They are kept by what they lead from and to, up to ``max_bytes`` of them; the oldest go first.
    """

    def __init__(self, max_bytes: int = 1 << 22) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._known: dict[tuple[int, int, int, int], bytes | None] = {}

    def between(self, base: bytes, target: bytes) -> bytes | None:
        """Return what makes ``target`` of ``base``, if that is shorter."""
        key = (hash(base), len(base), hash(target), len(target))
        if key in self._known:
            return self._known[key]
        patch = self._known[key] = fossil.create_shorter(base, target)
        self._size += _cost(patch)
        while self._size > self._max_bytes:
            oldest = next(iter(self._known))
            self._size -= _cost(self._known.pop(oldest))
        return patch


def _cost(patch: bytes | None) -> int:
    """Return the bytes that a known patch takes, its entry included."""
    return 300 + (len(patch) if patch is not None else 0)


def as_chain(
    publications: Sequence[Publication], patches: Patches, *, is_json: bool
) -> tuple[list[Publication], int]:
    """
    Return recovered publications: the first one whole, the others as patches to the one before where that is shorter.

    Returns:
        Them, and the bytes that the patches save.

    Raises:
        InvalidPayloadError: They are to be JSON, and the data of one is not.

    """
    chain: list[Publication] = []
    saved = 0
    before: bytes | None = None
    for publication in publications:
        document = bytes(publication.data)  # one object for both its uses: it keeps its hash
        patch = patches.between(before, document) if before is not None else None
        if patch is None:
            chain.append(as_document(publication, is_json=is_json))
        else:
            chain.append(as_patch(publication, patch, is_json=is_json))
            saved += len(document) - len(patch)
        before = document
    return chain, saved


def as_keyed_chains(
    publications: Sequence[Publication], patches: Patches, *, is_json: bool
) -> tuple[list[Publication], int]:
    """
    Return changes of a map as ``as_chain`` does, but each key's first one whole and a key's others as patches to its own.

    A removal ends its key's chain.
    """
    chain: list[Publication] = []
    saved = 0
    known: dict[str, bytes] = {}
    for publication in publications:
        document = bytes(publication.data)
        before = known.pop(publication.key, None)
        if not publication.removed:
            known[publication.key] = document
        has_base = before is not None and not publication.removed
        patch = patches.between(before or b"", document) if has_base else None
        if patch is None:
            chain.append(as_document(publication, is_json=is_json))
        else:
            chain.append(as_patch(publication, patch, is_json=is_json))
            saved += len(document) - len(patch)
    return chain, saved


def _string(text: bytes) -> Raw:
    return Raw(_encode(text.decode()))
