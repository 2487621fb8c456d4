#!/usr/bin/env python
"""Django's command line for Tidewire."""

from __future__ import annotations

import os
import sys

import django
from django.core.management import ManagementUtility, execute_from_command_line


def main() -> None:
    """Run the command named by the arguments."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    if sys.argv[1:2] == ["version"]:
        # Django would tell its own; ``--version`` still does.
        django.setup()
        ManagementUtility(sys.argv).fetch_command("version").run_from_argv(sys.argv)
        return
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
