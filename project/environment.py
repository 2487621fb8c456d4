"""
The file of secrets that a checkout makes for itself, ``.tidewire/env``.

It is in dotenv form (``NAME=value``, one a line, ``#`` begins a comment line), is readable by its owner only
and is never committed. What stands in the real environment wins over it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path


def parse(text: str) -> dict[str, str]:
    """
    Read the lines of a dotenv file.

    Returns:
        Names and values in the order of the file; quotes around a value are taken off.

    Raises:
        ValueError: A line is no comment and has no ``=``; the text names the line, not its content.

    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, value = stripped.removeprefix("export ").partition("=")
        if not separator:
            raise ValueError(f"line {number}: expected NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def load(path: Path, environ: MutableMapping[str, str]) -> None:
    """Put what the file says into ``environ`` where that is silent; a missing file says nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for name, value in parse(text).items():
        environ.setdefault(name, value)


def add(path: Path, values: Mapping[str, str]) -> dict[str, str]:
    """
    Append what the file does not have yet.

    The file is created with mode 0600, in a folder of mode 0700, before the first byte is written,
    so that no one else can read a secret in between.

    Returns:
        The values that were new, which are the ones that now stand in the file.

    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        file.seek(0)
        text = file.read()
        known = parse(text)
        new = {name: value for name, value in values.items() if name not in known}
        if text and not text.endswith("\n"):
            file.write("\n")
        file.writelines(f"{name}={value}\n" for name, value in new.items())
    return new
