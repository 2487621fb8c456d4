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


def patch_between(base: Publication, publication: Publication) -> bytes | None:
    """Return what makes a publication's data of another's, if that is shorter."""
    return fossil.create_shorter(bytes(base.data), bytes(publication.data))


def as_document(publication: Publication, *, is_json: bool) -> Publication:
    """
    Return a publication with the whole document.

    Raises:
        InvalidPayloadError: It is to be JSON, and its data is not.

    """
    if not is_json:
        return publication
    check_payload(publication.data)
    return msgspec.structs.replace(publication, data=_string(bytes(publication.data)))


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


def as_chain(
    publications: Sequence[Publication], *, is_json: bool
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
    before: Publication | None = None
    for publication in publications:
        patch = patch_between(before, publication) if before is not None else None
        if patch is None:
            chain.append(as_document(publication, is_json=is_json))
        else:
            chain.append(as_patch(publication, patch, is_json=is_json))
            saved += len(publication.data) - len(patch)
        before = publication
    return chain, saved


def _string(text: bytes) -> Raw:
    return Raw(_encode(text.decode()))
