"""The scenarios, by what they are about; importing this makes the script whole."""

from __future__ import annotations

from tests.parity.scenarios import api, commands, deltas, filters, maps, polls, streams


MODULES = (streams, deltas, filters, maps, polls, commands, api)
