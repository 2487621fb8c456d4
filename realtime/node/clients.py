"""Who is connected to this process, by client id and by user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from realtime.client.client import Client


class Clients:
    """The clients whose connect was accepted; all anonymous ones are one user."""

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_user: dict[str, dict[str, Client]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        """Yield them in the order in which they came."""
        return iter(self._by_id.values())

    @property
    def num_users(self) -> int:
        """Distinct users."""
        return len(self._by_user)

    def add(self, client: Client) -> None:
        """Register a connected client."""
        session = client.session
        self._by_id[session.client_id] = client
        self._by_user.setdefault(session.user, {})[session.client_id] = client

    def remove(self, client: Client) -> None:
        """Forget a client; unknown ones are no error."""
        session = client.session
        if self._by_id.pop(session.client_id, None) is None:
            return
        of_user = self._by_user[session.user]
        del of_user[session.client_id]
        if not of_user:
            del self._by_user[session.user]

    def of(self, user: str, client_id: str = "", session_id: str = "") -> list[Client]:
        """Return the connections of a user, narrowed where the others are given."""
        return [
            client
            for client in self._by_user.get(user, {}).values()
            if (not client_id or client.session.client_id == client_id)
            and (not session_id or client.session.session_id == session_id)
        ]

    def count_of(self, user: str) -> int:
        """Return how many connections a user has."""
        return len(self._by_user.get(user, ()))
