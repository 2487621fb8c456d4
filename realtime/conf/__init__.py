"""
Configuration: what the operator may set, where it comes from, and what is wrong with it.

``options`` names every process option and its default, ``durations`` reads and prints times,
``loader`` merges the sources (defaults, ``settings.REALTIME``, file, environment, flags) into one
frozen ``ProcessOptions``, ``checks`` are Django's system checks over the result. Namespaces, proxies and
the like are rows in the database and are no business of these modules.
"""

from __future__ import annotations
