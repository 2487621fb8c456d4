"""
The demo page: what Tidewire does, shown on the machine that it runs on.

Served at ``/`` only where the option ``demo`` is on. Nothing else depends on this room.
"""
