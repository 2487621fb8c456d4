"""
The client protocol and the server API on the wire: messages, codecs, framing, error codes.

Pure: no Django, no Channels, no asyncio, no sockets, no clock, no randomness.
"""

from __future__ import annotations
