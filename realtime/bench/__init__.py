"""
``manage.py bench``: what this server costs on this machine, measured from outside.

``plan`` says what is measured and how much of it may be asked for; ``histogram`` and ``report`` are about the figures; all
three are pure. ``websocket_client`` and ``http_client`` are lean clients, ``worker`` the process that they live in and ``fleet``
several of those; ``server`` starts or names what is measured and reads its CPU time and memory; ``scenarios`` puts them
together. The clients know no Django, so that a client process starts in no time and costs little memory.
"""

from __future__ import annotations


SETTINGS_VARIABLE = "BENCH_SETTINGS"
DATABASE_VARIABLE = "BENCH_DATABASE"
"""How the server that is started learns of the project's settings module and of its scratch database."""


class BenchError(Exception):
    """A measurement did not come about; the text is for the user."""
