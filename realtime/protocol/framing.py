"""
What is wrong with a frame before it is known what it says.

The framings themselves stand with their codecs: lines of JSON in ``json_codec``, length-delimited messages in
``protobuf_codec``.
"""

from __future__ import annotations


class MalformedFrame(Exception):  # noqa: N818 -- it names the frame, and the edge answers it with a close
    """
    A frame, or one message in it, cannot be read.

    The commands that were yielded before it are to be carried out; then the connection ends with 3501.
    """
