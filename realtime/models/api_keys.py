"""Who may call the server API."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from realtime.models.revision import ConfigurationQuerySet, ConfigurationRow


API_KEY_PREFIX = "tw_"
API_KEY_BYTES = 32
VISIBLE_KEY_CHARACTERS = (
    11  # "tw_" and 8 of 43 characters: enough to recognise a key, 208 bits stay unknown
)


class ApiKeyQuerySet(ConfigurationQuerySet["ApiKey"]):
    """API keys."""

    def active(self) -> Self:
        """Those that were not revoked."""
        return self.filter(revoked_at=None)


class ApiKey(ConfigurationRow):
    """
    A key of the server API; the key itself is known to its holder only.

    The row keeps the key's SHA-256: a key is 32 random bytes, so a fast digest without salt is enough, and requests
    find their row by it.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(
        max_length=100, unique=True, help_text="Who uses the key, such as <code>billing</code>."
    )
    prefix = models.CharField(
        max_length=VISIBLE_KEY_CHARACTERS,
        editable=False,
        help_text="The first characters of the key, to recognise it by.",
    )
    digest = models.CharField(
        max_length=64, unique=True, editable=False, help_text="SHA-256 of the key, hexadecimal."
    )
    scopes = models.JSONField(
        default=list,
        help_text=(
            "The API methods that the key may call. Everything includes methods that are added later."
        ),
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(
        max_length=255, blank=True, editable=False, help_text="Name of the user who created it."
    )
    revoked_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Since when the key is refused. A revoked key cannot be used again.",
    )

    ALL_METHODS: ClassVar[str] = "*"

    objects: ClassVar[ApiKeyQuerySet] = ApiKeyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        """Found by digest in the snapshot, never by a query."""

        ordering: ClassVar = ["name"]
        verbose_name = "API key"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(digest__regex=r"^[0-9a-f]{64}$"), name="realtime_apikey_digest"
            ),
        ]

    def __str__(self) -> str:
        """Show the name."""
        return self.name

    def clean(self) -> None:
        """Refuse scopes that are not a list of method names."""
        super().clean()
        scopes = self.scopes
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ValidationError({"scopes": "a list of method names is expected"})

    @classmethod
    def generate(cls, name: str, scopes: Collection[str], created_by: str = "") -> tuple[Self, str]:
        """
        Make a row for a new key.

        Args:
            name: Who will use it.
            scopes: API methods, or ``"*"`` for all.
            created_by: Name of the user, for the record.

        Returns:
            The row, not saved yet, and the key: show it once and forget it.

        """
        key = API_KEY_PREFIX + secrets.token_urlsafe(API_KEY_BYTES)
        row = cls(name=name, scopes=sorted(scopes), created_by=created_by)
        row.take(key)
        return row, key

    def take(self, key: str) -> None:
        """Keep what may be kept of a key: its prefix and its digest."""
        self.prefix = key[:VISIBLE_KEY_CHARACTERS]
        self.digest = hashlib.sha256(key.encode()).hexdigest()

    def revoke(self) -> bool:
        """
        Refuse the key from now on, on all nodes within a second.

        Returns:
            Whether it was valid until now.

        """
        if self.revoked_at is not None:
            return False
        self.revoked_at = timezone.now()
        self.save(update_fields=["revoked_at"])
        return True
