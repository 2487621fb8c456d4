"""Brokers, presence and control buses behind the interfaces of ``engines/base.py``; strangers to each other."""

from __future__ import annotations
