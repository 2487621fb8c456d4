"""
Which state of the configuration is in the database, and the base of the rows whose writing makes another one of it.

Every write of a configuration row, single or in bulk, raises the number of the one ``ConfigurationRevision`` in the
same transaction, and announces it with ``configuration_changed`` after the commit. Two writers wait for each other on
that row, so numbers are committed in ascending order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router, transaction
from django.db.models.signals import post_save
from django.db.utils import DEFAULT_DB_ALIAS
from django.dispatch import Signal, receiver
from django.utils import timezone


Row = TypeVar("Row", bound=models.Model)

configuration_changed = Signal()
"""
Sent after a commit that changed configuration rows, with ``revision: int``; the sender is ``ConfigurationRevision``.

It comes once per write, so a transaction of many writes sends it many times, each time with the revision of that write:
receivers compare with what they have.
"""


class ConfigurationRevision(models.Model):
    """The one row that says which state of the configuration is in the database."""

    id = models.SmallAutoField(primary_key=True)
    number = models.BigIntegerField(
        default=0, help_text="Raised by every change of a configuration row; never goes back."
    )
    changed_at = models.DateTimeField(default=timezone.now, help_text="When it was raised last.")

    ONLY: ClassVar[int] = 1

    class Meta:
        """One row at most."""

        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(id=1), name="realtime_revision_is_single")
        ]

    def __str__(self) -> str:
        """Show the number."""
        return str(self.number)

    @classmethod
    def bump(cls, using: str = DEFAULT_DB_ALIAS) -> int:
        """
        Raise the number inside the caller's transaction, and announce it after the commit.

        Returns:
            The new number.

        """
        with transaction.atomic(using=using):
            rows = cls.objects.using(using)
            values = {"number": models.F("number") + 1, "changed_at": timezone.now()}
            if not rows.filter(pk=cls.ONLY).update(**values):  # the migration's row is lost
                rows.get_or_create(pk=cls.ONLY)
                rows.filter(pk=cls.ONLY).update(**values)
            number: int = rows.values_list("number", flat=True).get(pk=cls.ONLY)
            # Robust: a receiver that fails must not make a save that is already committed look failed.
            transaction.on_commit(
                lambda: configuration_changed.send_robust(sender=cls, revision=number),
                using=using,
            )
        return number


class ConfigurationQuerySet(models.QuerySet[Row]):
    """Bulk writes that raise the revision like single ones."""

    def update(self, **values: Any) -> int:
        """Update rows and raise the revision, if any row was hit."""
        with transaction.atomic(using=self.db):
            hit = super().update(**values)
            if hit:
                ConfigurationRevision.bump(self.db)
        return hit

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete rows and raise the revision, if any row was hit."""
        with transaction.atomic(using=self.db):
            deleted = super().delete()
            if deleted[0]:
                ConfigurationRevision.bump(self.db)
        return deleted

    def bulk_create(self, objs: Iterable[Row], *args: Any, **options: Any) -> list[Row]:
        """Insert rows and raise the revision, if there were any."""
        with transaction.atomic(using=self.db):
            made = super().bulk_create(objs, *args, **options)
            if made:
                ConfigurationRevision.bump(self.db)
        return made


class ConfigurationRow(models.Model):
    """A row whose writing raises the revision."""

    class Meta:
        """No table of its own."""

        abstract = True

    def save(self, *args: Any, using: str | None = None, **options: Any) -> None:
        """Save and raise the revision in one transaction."""
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            super().save(*args, using=using, **options)
            ConfigurationRevision.bump(using)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete and raise the revision in one transaction."""
        using = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            deleted = super().delete(using=using, keep_parents=keep_parents)
            ConfigurationRevision.bump(using)
        return deleted

    @classmethod
    def column(cls, name: str) -> models.Field[Any, Any]:
        """Return the definition of a column."""
        field = cls._meta.get_field(name)
        if not isinstance(field, models.Field):
            raise FieldDoesNotExist(name)
        return field


@receiver(post_save)
def announce_loaded_fixture(sender: type[models.Model], raw: bool, using: str, **_: Any) -> None:
    """Raise the revision for rows of ``loaddata``, which goes past ``save``."""
    if raw and issubclass(sender, ConfigurationRow):
        ConfigurationRevision.bump(using)
