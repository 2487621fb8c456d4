"""
Columns of options, by kind; each has a default, the value that stands for "not set".

A column that was added later is given a ``db_default``: older code, while it still runs, leaves it out of its rows.
"""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


MAX_NUMBER = 2**31 - 1
"""The largest value of a number among the options."""


class SecondsField(models.FloatField):  # type: ignore[type-arg]
    """
    A duration as float seconds.

    The column is a number on every database, so that rows read into float seconds without conversion; people enter and
    read ``1h30m``: the admin gives the field a form field of its own.
    """


def flag(help_text: str, **options: Any) -> models.BooleanField[bool, bool]:
    """Make a column that is off by default."""
    return models.BooleanField(default=False, help_text=help_text, **options)


def text(help_text: str, default: str = "", **options: Any) -> models.CharField[str, str]:
    """Make a column of up to 255 characters."""
    return models.CharField(
        max_length=255, blank=True, default=default, help_text=help_text, **options
    )


def choice(choices: type[models.TextChoices], help_text: str) -> models.CharField[str, str]:
    """Make a column of one of a few words, or none."""
    return models.CharField(
        max_length=32, blank=True, default="", choices=choices.choices, help_text=help_text
    )


def seconds(help_text: str, **options: Any) -> SecondsField:
    """Make a column of a duration, 0 by default."""
    return SecondsField(default=0.0, help_text=help_text, **options)


def number(help_text: str, **options: Any) -> models.IntegerField[int, int]:
    """Make a column of a whole number, 0 by default."""
    # The least range that a database has for the column, and the same on all of them.
    limits = [MinValueValidator(-MAX_NUMBER), MaxValueValidator(MAX_NUMBER)]
    return models.IntegerField(default=0, help_text=help_text, validators=limits, **options)
