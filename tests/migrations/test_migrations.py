"""The models are what the migrations make, and migrating down and up again works."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from realtime.models import ConfigurationRevision, Namespace


@pytest.mark.django_db
def test_models_and_migrations_agree():
    """Nothing would be migrated that is not."""
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db(transaction=True)
def test_migrating_down_and_up_ends_with_the_rows_that_always_exist():
    """Without migrations there is no table; afterwards everything is off, and there is a revision."""
    call_command("migrate", "realtime", "zero", verbosity=0)
    assert "realtime_namespace" not in connection.introspection.table_names()

    call_command("migrate", "realtime", verbosity=0)

    assert [row.name for row in Namespace.objects.all()] == [""]
    assert ConfigurationRevision.objects.get().pk == 1


@pytest.mark.django_db(transaction=True)
def test_flush_keeps_the_row_without_namespace():
    """An emptied database is configured like a new one."""
    Namespace.objects.create(name="chat")

    call_command("flush", interactive=False, verbosity=0)

    assert [row.name for row in Namespace.objects.all()] == [""]
