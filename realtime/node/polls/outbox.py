"""
What is on its way to connections, written once per connection and tick.

An answer brings many keys and a client tracks many: 16 writes to one socket cost ten times what one joined write does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from realtime.client.client import Client


class Outbox:
    """
    Messages by connection, in order.

    Args:
        soon: Calls a function in the next tick.

    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self.boxes: dict[Client, list[bytes]] = {}
        self._soon = soon
        self._is_due = False

    def will_flush(self) -> None:
        """See to it that what was put into ``boxes`` leaves in the next tick."""
        if not self._is_due and self.boxes:
            self._is_due = True
            self._soon(self.flush)

    def put(self, client: Client, message: bytes) -> None:
        """Add a message."""
        box = self.boxes.get(client)
        if box is None:
            self.boxes[client] = [message]
        else:
            box.append(message)

    def hurry(self, client: Client) -> None:
        """Write what one connection is owed now, before something else that it has to come before."""
        box = self.boxes.pop(client, None)
        if box is not None:
            client.write_checked(client.wire.separator.join(box))

    def flush(self) -> None:
        """Write everything."""
        self._is_due = False
        boxes, self.boxes = self.boxes, {}
        for client, box in boxes.items():
            client.write_checked(box[0] if len(box) == 1 else client.wire.separator.join(box))
