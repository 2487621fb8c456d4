"""The record of what was changed by whom."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone


class ConfigurationChange(models.Model):
    """
    Who changed which configuration row, when, and each option's value before and after.

    Names are kept as text, so that a record outlives the row and the user's account.
    """

    class Action(models.TextChoices):
        """What happened to the row."""

        ADDED = "added", "added"
        CHANGED = "changed", "changed"
        DELETED = "deleted", "deleted"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField("time", default=timezone.now, db_index=True)
    actor = models.CharField(
        "who",
        max_length=255,
        blank=True,
        help_text="A user's name, or the system account that ran a command.",
    )
    source = models.CharField(max_length=32, help_text="<code>admin</code>, or the command's name.")
    action = models.CharField("what", max_length=16, choices=Action.choices)
    kind = models.CharField("kind of row", max_length=100)
    row_id = models.CharField("row ID", max_length=64)
    row_name = models.CharField("row", max_length=255)
    changes = models.JSONField(
        default=list, help_text="A list of [option, value before, value after]."
    )

    class Meta:
        """Newest first."""

        ordering: ClassVar = ["-at", "-id"]
        verbose_name = "configuration change"
        indexes: ClassVar = [models.Index(fields=["kind", "row_id"], name="realtime_change_of_row")]

    def __str__(self) -> str:
        """Show what happened."""
        return f"{self.kind} {self.row_name} {self.action}"
