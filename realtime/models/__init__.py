"""
The operator's configuration as rows: namespaces, proxies, API keys, and what was changed by whom.

Nothing here is traffic: publications, presence and connections live in the engine. The rows are read by
``realtime.conf.snapshot`` alone, which makes immutable tables of them; no other code of the server asks the ORM.
"""

from __future__ import annotations

from realtime.models.api_keys import ApiKey, ApiKeyQuerySet
from realtime.models.changes import ConfigurationChange
from realtime.models.choices import (
    DataFormat,
    MapClientKey,
    MapMode,
    RecoveryMode,
    SharedPollMode,
    SubscriptionType,
)
from realtime.models.fields import MAX_NUMBER, SecondsField
from realtime.models.namespaces import (
    OPTION_COLUMNS,
    WITHOUT_NAMESPACE,
    Namespace,
    NamespaceQuerySet,
    nested,
)
from realtime.models.proxies import Proxy, ProxyQuerySet
from realtime.models.revision import (
    ConfigurationQuerySet,
    ConfigurationRevision,
    ConfigurationRow,
    configuration_changed,
)


__all__ = [
    "MAX_NUMBER",
    "OPTION_COLUMNS",
    "WITHOUT_NAMESPACE",
    "ApiKey",
    "ApiKeyQuerySet",
    "ConfigurationChange",
    "ConfigurationQuerySet",
    "ConfigurationRevision",
    "ConfigurationRow",
    "DataFormat",
    "MapClientKey",
    "MapMode",
    "Namespace",
    "NamespaceQuerySet",
    "Proxy",
    "ProxyQuerySet",
    "RecoveryMode",
    "SecondsField",
    "SharedPollMode",
    "SubscriptionType",
    "configuration_changed",
    "nested",
]
