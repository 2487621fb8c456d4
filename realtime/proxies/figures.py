"""How often, how long and with what success the application is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Figure:
    """Of one event at one proxy; ``seconds`` is the sum over all ``calls`` that have ended."""

    inflight: int = 0
    calls: int = 0
    seconds: float = 0.0
    errors: int = 0


class ProxyFigures:
    """
    A node's figures of proxies, in the form of ``info``'s items.

    Names are those of Centrifugo's metrics ``proxy_duration_seconds``, ``proxy_errors`` and ``proxy_inflight_requests``, with
    the labels (``name``, ``protocol``, ``type``) after them. What the application itself answers, errors included, is no error.
    """

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def of(self, name: str, protocol: str, event: str) -> Figure:
        """Return the figure to count in."""
        labels = f"name.{name}.protocol.{protocol}.type.{event}"
        return self._figures.setdefault(labels, Figure())

    def gauges(self) -> dict[str, float]:
        """Return how many calls are under way."""
        return {
            f"centrifugo.proxy.inflight_requests.{labels}": float(figure.inflight)
            for labels, figure in self._figures.items()
        }

    def counters(self) -> dict[str, float]:
        """Return what only grows."""
        found: dict[str, float] = {}
        for labels, figure in self._figures.items():
            found[f"centrifugo.proxy.duration_seconds.count.{labels}"] = float(figure.calls)
            found[f"centrifugo.proxy.duration_seconds.sum.{labels}"] = figure.seconds
            found[f"centrifugo.proxy.errors.{labels}"] = float(figure.errors)
        return found
