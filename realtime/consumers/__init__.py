"""Channels consumers, one transport per module."""

from __future__ import annotations
