"""
What the command and its client processes say to each other: one JSON object a line, a request and then its answer.

Keys and tokens go this way, too, since arguments of a process are for everybody on the machine to read.
"""

from __future__ import annotations

import msgspec

from realtime.bench.plan import Plan


class Target(msgspec.Struct, frozen=True):
    """
    Where the server is.

    Attributes:
        address: Numeric, so that no client asks for it again.
        host: The name, for ``Host`` and TLS.
        path: What stands before ``/api`` and ``/connection``; empty or begins with a slash.

    """

    address: str
    host: str
    port: int
    is_tls: bool = False
    path: str = ""

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without a slash at its end."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.path}"


# --- requests ---------------------------------------------------------------------------------------


class Setup(msgspec.Struct, tag="setup"):
    """
    First: what to do.

    Attributes:
        position: Which one of ``plan.processes`` this process is; it holds the sockets whose number leaves that
            remainder, and the publishers alike.

    """

    plan: Plan
    target: Target
    api_key: str
    position: int


class Open(msgspec.Struct, tag="open"):
    """
    Connect and subscribe all sockets.

    Attributes:
        tokens: One for each socket, in their order.

    """

    tokens: list[str]


class Publish(msgspec.Struct, tag="publish"):
    """
    Publish over HTTP.

    Attributes:
        warm_up: If above 0, so many publications, into a channel of their own; they count nowhere.

    """

    warm_up: int = 0


class Inbound(msgspec.Struct, tag="inbound"):
    """Have all sockets publish."""


class Count(msgspec.Struct, tag="count"):
    """Say how much has arrived."""


class Finish(msgspec.Struct, tag="finish"):
    """Tell the outcome."""


class Leave(msgspec.Struct, tag="leave"):
    """Close all sockets and end."""


Request = Setup | Open | Publish | Inbound | Count | Finish | Leave


# --- answers ----------------------------------------------------------------------------------------


class Done(msgspec.Struct, tag="done"):
    """
    The answer to all but ``Count`` and ``Finish``.

    Attributes:
        count: Sockets opened, publications or commands that were answered well.
        failed: Those that were not.
        errors: The first few reasons.
        first_ns: When the first was sent; of the monotonic clock, which all processes of a machine share. 0: none.
        last_ns: When the last was answered.
        latencies: Of each, as ``Histogram.counts``.

    """

    count: int = 0
    failed: int = 0
    errors: list[str] = []
    first_ns: int = 0
    last_ns: int = 0
    latencies: dict[int, int] = {}


class Counted(msgspec.Struct, tag="counted"):
    """
    The answer to ``Count``.

    Attributes:
        delivered: Publications that arrived at sockets.
        pings: Pings that the sockets answered.

    """

    delivered: int = 0
    pings: int = 0


class Outcome(msgspec.Struct, tag="outcome"):
    """
    The answer to ``Finish``.

    Attributes:
        delivered: Publications that arrived, each socket's at most what it is owed.
        missing: What sockets are still owed.
        surplus: What they got beyond that.
        last_ns: When the last arrived.
        latencies: From the publisher's clock to the arrival, of a sample of sockets.
        errors: The first few reasons of what went wrong.

    """

    delivered: int = 0
    missing: int = 0
    surplus: int = 0
    last_ns: int = 0
    latencies: dict[int, int] = {}
    errors: list[str] = []


Answer = Done | Counted | Outcome
