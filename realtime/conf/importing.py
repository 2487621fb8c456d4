"""
How a file's namespaces and proxies get into the database.

What results is judged as a whole, what is different is a ``Plan``, and it is done as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from realtime.conf import proxy_rows
from realtime.conf.options import ProcessOptions
from realtime.conf.proxy_rules import find_problems, name_problem
from realtime.conf.snapshot import describe, make_candidate
from realtime.conf.transfer import (
    Change,
    RowSection,
    Settings,
    apply_settings,
    compare,
    default_of,
    options_of,
    record_change,
    settings_of,
)
from realtime.models import WITHOUT_NAMESPACE, ConfigurationChange, Namespace, Proxy
from realtime.namespaces.validation import Problem, validate
from realtime.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Step:
    """One row that an import adds, changes or deletes; ``kind`` is ``namespace`` or ``proxy``."""

    kind: str
    action: ConfigurationChange.Action
    name: str
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What an import does, or did.

    Attributes:
        steps: Proxies, then namespaces, each in order of the names; proxies that go are last.
        unchanged: How many rows of the file are in the database as they stand in the file.
        warnings: Of the configuration that results.

    """

    steps: list[Step]
    unchanged: int
    warnings: list[Problem]


@dataclass(frozen=True, slots=True)
class _Kind:
    """
    How rows of one kind are read and written.

    Attributes:
        make: Makes a row of a name.
        tell: Makes settings fit for a report, without secrets.

    """

    name: str
    make: Callable[[str], Any]
    settings_of: Callable[[Any], Settings]
    default_of: Callable[[str], Any]
    apply_settings: Callable[[Any, Settings], None]
    tell: Callable[[Settings], Settings]


_NAMESPACES = _Kind(
    "namespace", lambda name: Namespace(name=name), settings_of, default_of, apply_settings, dict
)
_PROXIES = _Kind(
    "proxy",
    lambda name: Proxy(name=name),
    proxy_rows.settings_of,
    proxy_rows.default_of,
    proxy_rows.apply_settings,
    proxy_rows.hide,
)


@dataclass(frozen=True, slots=True)
class _Part:
    """
    The rows of one kind in an import.

    Attributes:
        rows: What is in the database, by name.
        wanted: What the file has, by name.
        surplus: Names of the rows to delete.

    """

    kind: _Kind
    rows: Mapping[str, Any]
    wanted: Mapping[str, Settings]
    surplus: Set[str]

    def plan(self, names: Set[str]) -> Iterator[Step]:
        """Yield what is to be done about some of the names."""
        for name in sorted(names):
            step = self._step(name)
            if step is not None:
                yield step

    def _step(self, name: str) -> Step | None:
        kind, row, wanted = self.kind, self.rows.get(name), self.wanted.get(name)
        before = kind.settings_of(row) if row is not None else {}
        changes = [
            (path, self._or_default(path, old), self._or_default(path, new))
            for path, old, new in compare(kind.tell(before), kind.tell(wanted or {}))
        ]
        action = ConfigurationChange.Action
        if wanted is None:
            return Step(kind.name, action.DELETED, name, changes)
        if row is None:
            return Step(kind.name, action.ADDED, name, changes)
        return Step(kind.name, action.CHANGED, name, changes) if changes else None

    def _or_default(self, path: str, value: Any) -> Any:
        return self.kind.default_of(path) if value is None else value

    def execute(self, step: Step, actor: str, source: str) -> None:
        """Do one step."""
        row = self.rows.get(step.name) or self.kind.make(step.name)
        wanted = self.wanted.get(step.name)
        if wanted is not None:
            self.kind.apply_settings(row, wanted)
            row.save()
        record_change(row, step.action, step.changes, actor=actor, source=source)
        if wanted is None:
            row.delete()


def import_section(
    section: RowSection,
    options: ProcessOptions,
    *,
    actor: str,
    source: str,
    prune: bool = False,
    dry_run: bool = False,
) -> Plan:
    """
    Bring a file's namespaces and proxies into the database, all or none.

    A row of the file replaces the one of its name as a whole: options that the file leaves out are default
    afterwards. Rows that the file doesn't have stay, unless ``prune``; which deletes none of a kind that the file does not
    speak of.

    Raises:
        ConfigError: The configuration that would result is not valid; nothing is changed.

    """
    with transaction.atomic():
        namespaces, proxies = _parts(section, prune=prune)
        warnings = _validate(namespaces, proxies, options)
        # A namespace may name a proxy that the file brings, and no longer one that goes.
        planned = [
            *((proxies, step) for step in proxies.plan(set(proxies.wanted))),
            *(
                (namespaces, step)
                for step in namespaces.plan({*namespaces.wanted, *namespaces.surplus})
            ),
            *((proxies, step) for step in proxies.plan(proxies.surplus)),
        ]
        if not dry_run:
            for part, step in planned:
                part.execute(step, actor, source)
    looked_at = sum(len(part.wanted) + len(part.surplus) for part in (namespaces, proxies))
    return Plan([step for _, step in planned], looked_at - len(planned), warnings)


def _parts(section: RowSection, *, prune: bool) -> tuple[_Part, _Part]:
    rows = {row.name: row for row in Namespace.objects.select_for_update()}
    wanted = dict(section.namespaces or {})
    surplus = set(rows) - set(wanted) - {WITHOUT_NAMESPACE}
    if section.without_namespace is not None:
        wanted[WITHOUT_NAMESPACE] = section.without_namespace
    is_pruned = prune and section.namespaces is not None
    namespaces = _Part(_NAMESPACES, rows, wanted, surplus if is_pruned else set())

    proxy_rows_by_name = {row.name: row for row in Proxy.objects.select_for_update()}
    wanted_proxies = dict(section.proxies or {})
    surplus = set(proxy_rows_by_name) - set(wanted_proxies)
    is_pruned = prune and section.proxies is not None
    proxies = _Part(_PROXIES, proxy_rows_by_name, wanted_proxies, surplus if is_pruned else set())
    return namespaces, proxies


def _validate(namespaces: _Part, proxies: _Part, options: ProcessOptions) -> list[Problem]:
    """Judge the configuration that results; return its warnings."""
    result = {
        name: row.to_options()
        for name, row in namespaces.rows.items()
        if name not in namespaces.surplus
    }
    for name, settings in namespaces.wanted.items():
        result[name] = options_of(settings)
    names = {*proxies.rows, *proxies.wanted} - proxies.surplus
    problems = validate(make_candidate(options, result, names))
    errors = [*proxy_problems(proxies.wanted)]
    errors += [describe(problem) for problem in problems if not problem.is_warning]
    if errors:
        raise ConfigError("\n".join(errors))
    return [problem for problem in problems if problem.namespace in namespaces.wanted]


def proxy_problems(proxies: Mapping[str, Settings]) -> Iterator[str]:
    """List what is wrong with a file's proxies, by the path in the file."""
    for name, settings in proxies.items():
        row = Proxy(name=name)
        proxy_rows.apply_settings(row, settings)
        if text := name_problem(name):
            yield f"proxies[{name}].name: {text}"
        for path, text in find_problems(proxy_rows.options_of_row(row, proxy_rows.KEPT)):
            yield f"proxies[{name}].{path}: {text}"
