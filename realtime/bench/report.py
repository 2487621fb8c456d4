"""The figures: as a table for people, as JSON for programs; with the machine and the versions that they are of."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import psutil

from realtime.bench.histogram import Histogram
from realtime.bench.plan import Plan
from realtime.version import VERSION


UNITS = {
    "fanout": "delivery",
    "channels": "publish + delivery",
    "publish": "publish",
    "connect": "connect + JWT + subscribe",
    "inbound": "client publish",
}
"""What a scenario's CPU time and rate are divided by."""

_PACKAGES = ("Django", "channels", "uvicorn", "uvloop", "msgspec")
_PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
_MAX_ERRORS = 5
# Of the time that the client processes could have had.
_BUSY = 0.9


@dataclass(slots=True)
class Result:
    """
    What one scenario found.

    Attributes:
        variant: What sets it apart from the scenario as such: ``delta``, ``100 filters``; else empty.
        asked: Sockets to open, or publications to make.
        done: Those that were answered well.
        failed: Those that were not.
        owed: Deliveries there had to be.
        delivered: Those there were.
        missing: What sockets did not get. Not ``owed - delivered`` only: each socket is counted by itself.
        surplus: What sockets got beyond what they were owed.
        pings: That the server sent and the sockets answered while they were left idle.
        seconds: From the first that was sent to the last that arrived.
        cpu_seconds: The server's, ``None`` where its processes are not known.
        client_cpu_seconds: Of the client processes at the same time.
        kb_per_socket: Its memory after the sockets came, less that before, by their number.
        latency_ms: ``p50``, ``p99``, ``p999``: from the payload's timestamp to the arrival; of ``publish`` to the answer,
            of ``connect`` from the dial to the last subscription.
        samples: How many latencies those are of.
        pids: The server's processes.

    """

    scenario: str
    variant: str
    unit: str
    clients: int
    channels: int
    publications: int
    publishers: int
    size: int
    rate: float
    client_processes: int
    asked: int
    owed: int
    done: int = 0
    failed: int = 0
    delivered: int = 0
    missing: int = 0
    surplus: int = 0
    pings: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = None
    client_cpu_seconds: float = 0.0
    kb_per_socket: float | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    pids: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, pids: list[int]) -> Self:
        """Begin with what was asked for."""
        asked = {
            "connect": plan.clients,
            "inbound": plan.clients * plan.publications,
        }.get(plan.scenario, plan.publications)
        return cls(
            scenario=plan.scenario,
            variant=plan.variant,
            unit=UNITS[plan.scenario],
            clients=plan.clients if plan.scenario != "publish" else 0,
            channels=plan.channels,
            publications=asked if plan.scenario != "connect" else 0,
            publishers=plan.publishers if plan.scenario in ("fanout", "channels", "publish") else 0,
            size=plan.size,
            rate=plan.rate,
            client_processes=plan.processes,
            asked=asked,
            owed=plan.deliveries,
            missing=plan.deliveries,
            pids=pids,
        )

    @property
    def name(self) -> str:
        """The scenario with its variant."""
        return f"{self.scenario}, {self.variant}" if self.variant else self.scenario

    @property
    def units(self) -> int:
        """What was done, in the scenario's unit."""
        return self.delivered if self.scenario in ("fanout", "channels") else self.done

    @property
    def per_second(self) -> float:
        """Units by seconds."""
        return self.units / self.seconds if self.seconds > 0 else 0.0

    @property
    def cpu_us(self) -> float | None:
        """The server's CPU time for a unit, in microseconds."""
        if self.cpu_seconds is None or not self.units:
            return None
        return self.cpu_seconds * 1e6 / self.units

    @property
    def is_bound_by_clients(self) -> bool:
        """Whether the clients had hardly a moment to spare, so that units a second and latency are theirs."""
        return self.client_cpu_seconds > _BUSY * self.seconds * self.client_processes

    @property
    def is_complete(self) -> bool:
        """Whether all was done and all arrived, once."""
        return not (self.failed or self.missing or self.surplus or self.errors)

    def add_errors(self, errors: Iterable[str]) -> None:
        """Keep the first few reasons, each once."""
        self.errors = list(dict.fromkeys([*self.errors, *errors]))[:_MAX_ERRORS]

    def set_latencies(self, histogram: Histogram) -> None:
        """Take percentiles from a histogram, if there is anything in it."""
        values = {name: histogram.percentile(percent) for name, percent in _PERCENTILES.items()}
        self.latency_ms = {
            name: round(value / 1e6, 4) for name, value in values.items() if value is not None
        }
        self.samples = histogram.total

    def to_json(self) -> dict[str, Any]:
        """Return all figures; rates and costs that can't be told are null."""
        content = asdict(self)
        content["seconds"] = round(self.seconds, 4)
        for name, value, digits in (
            ("cpu_seconds", self.cpu_seconds, 3),
            ("client_cpu_seconds", self.client_cpu_seconds, 3),
            ("kb_per_socket", self.kb_per_socket, 2),
            ("cpu_us_per_unit", self.cpu_us, 3),
            ("per_second", self.per_second, 1),
        ):
            content[name] = None if value is None else round(value, digits)
        content["units"] = self.units
        content["is_bound_by_clients"] = self.is_bound_by_clients
        content["is_complete"] = self.is_complete
        return content

    def problems(self) -> list[str]:
        """Say in words what is not as it has to be."""
        found = []
        if self.missing:
            found.append(f"{self.missing:,} of {self.owed:,} deliveries are missing")
        if self.surplus:
            found.append(f"{self.surplus:,} deliveries came that nobody was owed")
        if self.failed:
            found.append(f"{self.failed:,} of {self.asked:,} failed")
        return [f"{self.name}: {text}" for text in [*found, *self.errors]]


def machine() -> dict[str, Any]:
    """Describe this machine; without its name, which is nobody's business."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    models = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return models[0].strip() if models else platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Tell what the clients run on, and a server that is started here, too."""
    return {
        "tidewire": VERSION,
        "python": platform.python_version(),
        **{name.lower(): metadata.version(name) for name in _PACKAGES},
    }


def to_json(document: dict[str, Any], results: Sequence[Result]) -> str:
    """Put a run together: what it was of, and what it found."""
    content = {**document, "scenarios": [result.to_json() for result in results]}
    return json.dumps(content, indent=2, allow_nan=False)


def to_table(results: Sequence[Result]) -> str:
    """Put the figures into a table, which is Markdown, too."""
    head = (
        "scenario",
        "sockets x channels",
        "done",
        "unit",
        "units/s",
        "server CPU, µs/unit",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "KB/socket",
    )
    rows = [head, *map(_row, results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "| " + " | ".join(_rule(at, width) for at, width in enumerate(widths)) + " |")
    return "\n".join(lines)


_TEXT_COLUMNS = (0, 1, 3)


def _rule(at: int, width: int) -> str:
    return "-" * width if at in _TEXT_COLUMNS else "-" * (width - 1) + ":"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if at in _TEXT_COLUMNS else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(cells) + " |"


def _row(result: Result) -> tuple[str, ...]:
    latencies = (result.latency_ms.get(name) for name in _PERCENTILES)
    return (
        result.name,
        f"{result.clients:,} x {result.channels:,}",
        f"{result.units:,}",
        result.unit,
        f"{result.per_second:,.0f}",
        _figure(result.cpu_us),
        *map(_figure, latencies),
        _figure(result.kb_per_socket, "{:,.1f}"),
    )


def _figure(value: float | None, form: str = "{:,.2f}") -> str:
    return "-" if value is None else form.format(value)
