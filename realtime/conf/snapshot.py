"""
The configuration rows as one immutable value, which the server uses in their place.

A node loads the whole configuration, has it validated, and swaps one reference. No other module of the server asks the
ORM. Rows that don't validate never become a ``Configuration``: ``load_configuration`` raises, and the node
keeps what it has.

All functions are synchronous: call them in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from realtime.conf.options import ProcessOptions, ProxyOptions
from realtime.conf.proxy_rows import named_options
from realtime.conf.proxy_rules import known_proxies
from realtime.models import (
    WITHOUT_NAMESPACE,
    ConfigurationRevision,
    Namespace,
    Proxy,
    configuration_changed,
)
from realtime.models import ApiKey as ApiKeyRow
from realtime.namespaces.options import ChannelOptions, ChannelRules
from realtime.namespaces.table import NamespaceTable
from realtime.namespaces.validation import Candidate, PersonalChannel, Problem, validate
from realtime.protocol.errors import ConfigError


__all__ = [
    "ApiKey",
    "Configuration",
    "configuration_changed",
    "describe",
    "load_configuration",
    "make_candidate",
    "read_options",
    "read_revision",
    "rules_of",
]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """
    What an API key may do; the key itself is not known here.

    ``prefix`` is the key's visible beginning, for logs. ``scopes`` are names of API methods, or ``"*"`` for all.
    """

    name: str
    prefix: str
    scopes: frozenset[str]

    def may_call(self, method: str) -> bool:
        """Say whether the key may call an API method."""
        return method in self.scopes or ApiKeyRow.ALL_METHODS in self.scopes


@dataclass(frozen=True, slots=True)
class Configuration:
    """
    One state of the configuration.

    ``api_keys`` has the keys that are not revoked, by the SHA-256 digest (32 bytes) of the key. ``proxies`` are the named
    ones; those of handlers in Python are not among them.
    """

    revision: int
    table: NamespaceTable
    api_keys: Mapping[bytes, ApiKey]
    proxies: Mapping[str, ProxyOptions] = field(default_factory=lambda: MappingProxyType({}))


def read_revision() -> int:
    """
    Return the number of the configuration that is in the database; one read by primary key.

    Compare it for equality: it rises with every change, but ``flush`` begins anew.
    """
    row = ConfigurationRevision.objects.filter(pk=ConfigurationRevision.ONLY)
    numbers: list[int] = list(row.values_list("number", flat=True))
    return numbers[0] if numbers else 0


def load_configuration(options: ProcessOptions) -> Configuration:
    """
    Read all rows.

    Args:
        options: Of the process: the rules for all channels, and what refers to namespaces by name.

    Raises:
        ConfigError: The rows are no valid configuration; the text names every problem.

    """
    # The number first: should somebody commit before the rows are read, the configuration is newer than its number
    # says, and the next comparison loads it once more. The other way round a change would be missed.
    revision = read_revision()
    namespaces = read_options()
    proxies = named_options(Proxy.objects.all())
    problems = [
        problem
        for problem in validate(make_candidate(options, namespaces, proxies))
        if not problem.is_warning
    ]
    if problems:
        raise ConfigError("; ".join(describe(problem) for problem in problems))
    without_namespace = namespaces.pop(WITHOUT_NAMESPACE, ChannelOptions())
    table = NamespaceTable(without_namespace, namespaces, rules_of(options), revision)
    return Configuration(
        revision, table, MappingProxyType(_read_api_keys()), MappingProxyType(proxies)
    )


def read_options() -> dict[str, ChannelOptions]:
    """
    Read the namespaces, unvalidated.

    Returns:
        Options by name; ``""`` are the channels without a namespace.

    Raises:
        ConfigError: A row holds something that isn't a value of its option.

    """
    return {row.name: row.to_options() for row in Namespace.objects.all()}


def make_candidate(
    options: ProcessOptions,
    namespaces: Mapping[str, ChannelOptions] | Iterable[tuple[str, ChannelOptions]],
    proxies: Iterable[str],
) -> Candidate:
    """
    Make what ``realtime.namespaces.validation.validate`` looks at.

    Args:
        options: Of the process.
        namespaces: By name, or pairs (a name may be there twice, which is a problem); ``""`` are the
            channels without a namespace.
        proxies: Names of those that namespaces may name, beside ``default`` and those of handlers in Python.

    """
    pairs = list(namespaces.items() if isinstance(namespaces, Mapping) else namespaces)
    without = [found for name, found in pairs if name == WITHOUT_NAMESPACE]
    personal = options.client.subscribe_to_user_personal_channel
    return Candidate(
        without_namespace=without[-1] if without else ChannelOptions(),
        namespaces=[pair for pair in pairs if pair[0] != WITHOUT_NAMESPACE],
        rules=rules_of(options),
        proxies=known_proxies(options, proxies),
        personal_channel=PersonalChannel(
            enabled=personal.enabled,
            namespace=personal.personal_channel_namespace,
            single_connection=personal.single_connection,
        ),
        has_shared_poll_secret=bool(options.shared_poll.hmac_secret_key),
    )


def rules_of(options: ProcessOptions) -> ChannelRules:
    """Pick the rules for all channels out of the process options."""
    channel = options.channel
    return ChannelRules(
        max_length=channel.max_length,
        private_prefix=channel.private_prefix,
        namespace_boundary=channel.namespace_boundary,
        user_boundary=channel.user_boundary,
        user_separator=channel.user_separator,
        history_meta_ttl=channel.history_meta_ttl,
        publication_data_format=channel.publication_data_format,
    )


def describe(problem: Problem) -> str:
    """Name the path of a problem in a configuration file, and say what is wrong there."""
    if problem.namespace:
        return f"channel.namespaces[{problem.namespace}].{problem.field}: {problem.message}"
    if "." in problem.field and problem.field.partition(".")[0] in ("channel", "client"):
        return f"{problem.field}: {problem.message}"
    return f"channel.without_namespace.{problem.field}: {problem.message}"


def _read_api_keys() -> dict[bytes, ApiKey]:
    return {
        bytes.fromhex(row.digest): ApiKey(row.name, row.prefix, _scopes(row))
        for row in ApiKeyRow.objects.active()
    }


def _scopes(row: ApiKeyRow) -> frozenset[str]:
    scopes: Any = row.scopes
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ConfigError(f"API key {row}: the scopes are no list of method names")
    return frozenset(scopes)
