"""
The edge: our classes for uvicorn and Daphne, with the ASGI extension that the consumers write frames through.

``frame_codec``, ``deflate`` and ``handshake`` are pure; ``frames_protocol`` and ``http_protocol`` sit on asyncio transports
beneath uvicorn; ``daphne`` does the same on Twisted; ``production`` runs uvicorn the way ``manage.py serve`` does.
"""

from __future__ import annotations
