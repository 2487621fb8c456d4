"""The async shell of one connection: it asks the session, awaits the node, tells the client."""

from __future__ import annotations
