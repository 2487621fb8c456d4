"""Tell the version."""

from __future__ import annotations

import platform
from typing import Any

from realtime.management.base import ConfigCommand
from realtime.version import VERSION


class Command(ConfigCommand):
    """``manage.py version``."""

    help = "Print the version of Tidewire and of Python."

    def handle(self, *args: Any, **options: Any) -> None:
        """Print."""
        self.stdout.write(f"Tidewire v{VERSION} (Python version: {platform.python_version()})")
