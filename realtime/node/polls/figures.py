"""What the shared polls of a node count."""

from __future__ import annotations

from collections.abc import Mapping


class PollFigures:
    """
    Counters, which only grow.

    Attributes:
        deliveries: Values that were pushed, counted for each connection.
        patched: Those that were patches.
        bytes_saved: What the patches were shorter by.
        changed, unchanged, removed: Items of answers.
        calls: By what made them: ``timer``, ``cold`` or ``notification``.
        failures: Of these, the ones that failed.
        asked: Items that the application was asked for.
        cycles: Cycles that ended.
        notices: Keys that notifications named.
        dropped_notices: Those that had no room.
        published: Direct publishes that were news here.
        stale_publishes: Those that were not.

    """

    def __init__(self) -> None:
        self.deliveries = 0
        self.patched = 0
        self.bytes_saved = 0
        self.changed = 0
        self.unchanged = 0
        self.removed = 0
        self.calls = dict.fromkeys(("timer", "cold", "notification"), 0)
        self.failures = dict.fromkeys(self.calls, 0)
        self.asked = 0
        self.cycles = 0
        self.cycle_seconds = 0.0
        self.work_seconds = 0.0
        self.handler_seconds = 0.0
        self.wait_seconds = 0.0
        self.notices = 0
        self.dropped_notices = 0
        self.published = 0
        self.stale_publishes = 0

    def counters(self) -> Mapping[str, float]:
        """
        Return them by the names of ``info``; what Centrifugo has histograms of are sums of seconds and counts.

        A node that has never polled has none, so that those without shared polls don't read twenty zeros.
        """
        if not any(self.calls.values()) and not self.published:
            return {}
        prefix = "centrifugo.shared_poll"
        counted = {
            "items_count.result.changed": self.changed,
            "items_count.result.unchanged": self.unchanged,
            "items_count.result.removed": self.removed,
            "publish_count.result.ok": self.published,
            "publish_count.result.stale": self.stale_publishes,
            "notify_count": self.notices,
            "dropped_notify_count": self.dropped_notices,
            "proxy_request_items.sum": self.asked,
            "cycle_duration_seconds.count": self.cycles,
            "cycle_duration_seconds.sum": self.cycle_seconds,
            "cycle_work_duration_seconds.sum": self.work_seconds,
            "handler_duration_seconds.sum": self.handler_seconds,
            "sem_wait_duration_seconds.sum": self.wait_seconds,
        }
        for trigger in self.calls:
            counted[f"handler_duration_seconds.count.trigger.{trigger}"] = self.calls[trigger]
            counted[f"handler_error_count.trigger.{trigger}"] = self.failures[trigger]
        return {f"{prefix}.{name}": float(value) for name, value in counted.items()}
