"""
What is measured: the scenarios, their sizes, who holds which channel, and what has to arrive.

Every size has a bound: a benchmark that a typing error turns into an attack on one's own machine is no help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from realtime.bench import BenchError


SCENARIOS: Mapping[str, str] = MappingProxyType(
    {
        "fanout": "publications in one channel that all sockets hold; per delivery",
        "channels": "publications in a channel for each socket; per publication with its delivery",
        "publish": "publications that nobody listens to; per publication",
        "connect": "connect with a JWT and subscribe; per socket",
        "inbound": "sockets publish into a channel of their own and get it back; per command",
    }
)
"""Names, and what each does."""

# Those that may be carried out once more with deltas, and with filters.
WITH_VARIANTS = ("fanout", "channels")

# Deliveries of one scenario: a minute or two of a good machine.
MAX_DELIVERIES = 50_000_000


class PlanError(BenchError):
    """A size is out of its bounds, or sizes don't fit together; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most that may be asked for."""

    low: float
    high: float


LIMITS: Mapping[str, Bounds] = MappingProxyType(
    {
        "clients": Bounds(1, 100_000),
        "channels": Bounds(1, 1_000_000),
        "publications": Bounds(1, 1_000_000),
        "publishers": Bounds(1, 1_000),
        "size": Bounds(0, 60_000),  # a message may have 64 KiB by default
        "rate": Bounds(0, 1_000_000),
        "hold": Bounds(0, 300),
        "ramp": Bounds(1, 1_000),
        "processes": Bounds(1, 64),
        "filters": Bounds(0, 10_000),
        "max_seconds": Bounds(1, 600),
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """
    One scenario with its sizes.

    Attributes:
        scenario: A name of ``SCENARIOS``.
        clients: Sockets.
        channels: Channels; fewer than sockets are shared, more are held by the sockets in turn.
        publications: All in all; for ``inbound`` by each socket.
        publishers: HTTP connections that publish, each one request at a time.
        size: Bytes of padding in a payload.
        rate: Publications a second; 0 is as fast as they are answered.
        hold: Seconds that the sockets are left idle, before memory is read and anything is published; the server pings
            meanwhile.
        ramp: Sockets that connect at a time.
        processes: Client processes.
        max_seconds: Connecting and publishing each give up after so long, and the scenario fails.
        prefix: What channel names begin with.
        delta: Whether sockets ask for patches, and publications may be made into such.
        filters: How many different tags filters the sockets have in turn; each lets all publications through. 0: none.

    """

    scenario: str
    clients: int
    channels: int
    publications: int
    publishers: int
    size: int = 100
    rate: float = 0.0
    hold: float = 0.0
    ramp: int = 32
    processes: int = 1
    max_seconds: float = 60.0
    prefix: str = "bench:"
    delta: bool = False
    filters: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        for name, bounds in LIMITS.items():
            value = getattr(self, name)
            if not bounds.low <= value <= bounds.high:  # nan is neither
                raise PlanError(
                    f"{name} {value:g}: expected {bounds.low:,.0f} to {bounds.high:,.0f}"
                )
        if self.scenario == "inbound" and self.channels > self.clients:
            raise PlanError(
                f"inbound: {self.channels} channels for {self.clients} clients; each client has one channel"
            )
        if self.rate and self.publications > self.rate * self.max_seconds:
            raise PlanError(
                f"{self.publications:,} publications at {self.rate:g} a second take longer than the "
                f"{self.max_seconds:g} s after which a run gives up"
            )
        if self.deliveries > MAX_DELIVERIES:
            raise PlanError(
                f"{self.scenario}: {self.deliveries:,} deliveries are more than the {MAX_DELIVERIES:,} that a run "
                "may have; take fewer clients or publications"
            )

    def holdings(self) -> Iterator[tuple[int, int]]:
        """Yield ``(socket, channel)`` for each subscription there will be."""
        for number in range(max(self.clients, self.channels)):
            yield number % self.clients, number % self.channels

    def channels_of(self, socket: int) -> range:
        """Return which channels a socket holds, by number."""
        if self.channels <= self.clients:
            return range(socket % self.channels, socket % self.channels + 1)
        return range(socket, self.channels, self.clients)

    def name_of(self, channel: int) -> str:
        """Return a channel's name."""
        return f"{self.prefix}{channel}"

    def publications_in(self, channel: int) -> int:
        """Return how many publications a channel gets; they go to the channels in turn."""
        return len(range(channel, self.publications, self.channels))

    def expected_by(self, socket: int) -> int:
        """Return how many deliveries a socket is owed."""
        if self.scenario in ("connect", "publish"):
            return 0
        if self.scenario == "inbound":
            (channel,) = self.channels_of(socket)
            holders = len(range(channel, self.clients, self.channels))
            return self.publications * holders
        return sum(self.publications_in(channel) for channel in self.channels_of(socket))

    def request_of(self, socket: int) -> dict[str, Any]:
        """Return what a socket's subscribe requests have beside the channel."""
        if self.delta:
            return {"delta": "fossil"}
        if self.filters:
            return {"tf": {"key": "kind", "cmp": "neq", "val": f"none-{socket % self.filters}"}}
        return {}

    @property
    def publish_options(self) -> str:
        """What a publish request has beside channel and data, as JSON that follows these."""
        if self.delta:
            return ',"delta":true'
        return ',"tags":{"kind":"bench"}' if self.filters else ""

    @property
    def variant(self) -> str:
        """What sets it apart from the scenario as such, in words."""
        if self.delta:
            return "delta"
        return f"{self.filters:,} filter{'s' if self.filters > 1 else ''}" if self.filters else ""

    @property
    def deliveries(self) -> int:
        """How many deliveries there have to be in all."""
        if self.scenario in ("connect", "publish"):
            return 0
        if self.scenario == "inbound":
            return sum(self.expected_by(socket) for socket in range(self.clients))
        if self.channels >= self.clients:
            return self.publications
        sharing = (
            len(range(channel, self.clients, self.channels)) * self.publications_in(channel)
            for channel in range(self.channels)
        )
        return sum(sharing)

    @property
    def sockets_per_process(self) -> int:
        """The most sockets that one client process holds."""
        return -(-self.clients // self.processes)


_DEFAULTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "fanout": {"clients": 1000, "channels": 1, "publications": 500, "publishers": 4},
        "channels": {
            "clients": 1000,
            "channels": 1000,
            "publications": 20000,
            "publishers": 8,
        },
        # No socket is opened, so there is one channel that nobody holds.
        "publish": {"clients": 1, "channels": 1, "publications": 20000, "publishers": 8},
        "connect": {"clients": 4000, "channels": 4000, "publications": 1, "publishers": 1},
        "inbound": {"clients": 100, "channels": 100, "publications": 500, "publishers": 1},
    }
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """
    What the user gave of a plan; ``None`` is the scenario's default.

    Attributes:
        others: Sizes without a default of the scenario's own.

    """

    clients: int | None = None
    channels: int | None = None
    publications: int | None = None
    publishers: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)


def make_plan(scenario: str, sizes: Sizes) -> Plan:
    """
    Put a plan together from a scenario's defaults and what the user gave.

    ``channels`` and ``connect`` are about a channel for each socket, so their channels follow the sockets unless given.

    Raises:
        PlanError: It is impossible or too much.

    """
    defaults = dict(_DEFAULTS[scenario])
    if scenario in ("channels", "connect", "inbound") and sizes.clients is not None:
        defaults["channels"] = sizes.clients
    given = {
        each.name: getattr(sizes, each.name)
        for each in fields(sizes)
        if each.name != "others" and getattr(sizes, each.name) is not None
    }
    plan = Plan(scenario=scenario, **{**defaults, **given, **sizes.others})
    if scenario == "publish":
        return replace(plan, clients=1, channels=1)
    return plan


def with_variants(plan: Plan, *, delta: bool, filters: int) -> list[Plan]:
    """Return a plan, and after it the same with deltas, and with so many filters, where these are asked for."""
    plans = [plan]
    if plan.scenario in WITH_VARIANTS:
        if delta:
            plans.append(replace(plan, delta=True))
        if filters:
            plans.append(replace(plan, filters=filters))
    return plans
