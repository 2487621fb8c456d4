"""What the sections of process options share: kinds of values, the base class, TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import fields


Duration = Annotated[float, Meta(extra={"kind": "duration"})]
"""Seconds as a float; ``"1h30m"`` in every source."""

WholeSeconds = Annotated[float, Meta(extra={"kind": "whole_seconds"})]
"""A duration that must have no fraction of a second, for engines keep these TTLs in seconds."""

Pem = Annotated[str, Meta(extra={"kind": "pem"})]
"""PEM text; a source may also give it as base64 of PEM or as a path to a file."""

PortText = Annotated[str, Meta(extra={"kind": "port_text"})]
"""A port that may be left empty; a source may give a number."""

UrlPrefix = Annotated[str, Meta(extra={"kind": "url_prefix"})]
"""The path an endpoint is served under; begins with ``/``, a trailing one is dropped."""

Addresses = Annotated[tuple[str, ...], Meta(extra={"kind": "addresses"})]
"""A list of addresses; a source may give a single one as a string."""

StringMap = Annotated[Mapping[str, str], Meta(extra={"kind": "string_map"})]
"""Text by text; a source may give an object (keys become lower case) or a list of ``{key, value}``."""


SECRET_FIELDS = frozenset(
    {
        "address",  # of Redis: may carry a password
        "api_key",
        "cluster_address",
        "credentials_value",
        "dsn",
        "hmac_previous_secret_key",
        "hmac_secret_key",
        "key",
        "key_pem",
        "notify_dsn",
        "password",
        "secret",
        "sentinel_address",
        "sentinel_password",
        "static_headers",
        "static_metadata",
        "url",
    }
)
"""Fields whose values are never shown in a log, an error or a ``repr``."""


class Options(Struct, frozen=True, kw_only=True):
    """Base of every section; its ``repr`` shows what is not default, and no secret."""

    def __repr__(self) -> str:
        """Name the fields that were changed, with secrets hidden."""
        shown = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.default_factory is not NODEFAULT:
                default = item.default_factory()
            else:
                default = item.default
            if value != default:
                is_secret = item.name in SECRET_FIELDS
                shown.append(f"{item.name}={'***' if is_secret else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


class TLSOptions(Options, frozen=True, kw_only=True):
    """
    One TLS object; TLS 1.2 is the minimum.

    Attributes:
        client_ca_pem: On a server, turns on mandatory client certificates (mTLS).
        server_ca_pem: On a client, what the server's certificate is verified against.
        server_name: The host name to verify, where it differs from the address.

    """

    enabled: bool = False
    cert_pem: Pem = ""
    key_pem: Pem = ""
    server_ca_pem: Pem = ""
    client_ca_pem: Pem = ""
    insecure_skip_verify: bool = False
    server_name: str = ""
