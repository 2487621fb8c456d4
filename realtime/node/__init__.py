"""The process: its hub, its control bus, its clocks."""

from __future__ import annotations
