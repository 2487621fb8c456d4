"""One connection's state machine, permissions and recovery. Pure: time and ids are arguments."""

from __future__ import annotations
