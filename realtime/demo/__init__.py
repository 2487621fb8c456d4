"""The first look: a demo namespace, and real data for it."""

from __future__ import annotations
