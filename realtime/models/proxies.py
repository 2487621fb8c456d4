"""The backends of the application that namespaces name."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from realtime.models.fields import SecondsField, flag, text
from realtime.models.namespaces import OPTION_COLUMNS, Namespace
from realtime.models.revision import ConfigurationQuerySet, ConfigurationRow


class ProxyQuerySet(ConfigurationQuerySet["Proxy"]):
    """Proxies; those that a namespace names stay."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """
        Delete proxies.

        Raises:
            ProtectedError: A namespace names one of them; nothing is deleted.

        """
        used: set[models.Model] = {namespace for row in self for namespace in row.namespaces()}
        if used:
            raise models.ProtectedError(_PROXY_IS_USED, used)
        return super().delete()


_PROXY_IS_USED = "a namespace names this proxy"
_PROXY_NAME_COLUMNS = [
    column for column in OPTION_COLUMNS.values() if column.endswith("proxy_name")
]


def _pem(help_text: str) -> models.TextField[str, str]:
    help_text = f"{help_text} PEM text, base64 of it, or the path of a file on each server."
    return models.TextField(blank=True, default="", help_text=help_text)


def _names(help_text: str) -> models.JSONField[Any, Any]:
    return models.JSONField(default=list, blank=True, help_text=help_text)


class Proxy(ConfigurationRow):
    """
    A backend of the application that namespaces name in their ``..._proxy_name`` options.

    Columns are named as the members of a Centrifugo proxy object, with ``_`` between the levels. Values of headers and
    metadata may refer to the environment, ``${TIDEWIRE_VAR_NAME}``; they are kept so, and filled in by each server.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(
        max_length=255,
        unique=True,
        help_text=(
            "What namespaces call it by. At least two of <code>a-z A-Z 0-9 - _ .</code>, and not "
            "<code>default</code>, which is the one of <code>channel.proxy</code> in the process options."
        ),
    )
    endpoint = models.CharField(
        max_length=2000,
        help_text=(
            "Where your backend is asked: a URL, <code>https://app.example.com/poll</code>, which is posted to "
            "exactly as it stands, or a function of this Django project, <code>python:shop.realtime.prices</code>."
        ),
    )
    timeout = SecondsField(
        default=1.0,
        help_text="How long a whole call may take, such as <code>500ms</code> or <code>2s</code>.",
    )
    http_headers = _names(
        "Names of headers of the client's request that are passed on. Events that no client causes have none."
    )
    emulated_headers = _names(
        "Names of headers that clients may make up and that are passed on: do not trust their values."
    )
    grpc_metadata = _names("Keys of a gRPC client's metadata that are passed on.")
    include_connection_meta = flag("Requests carry what the server keeps about the connection.")
    binary_encoding = flag("Payloads in requests are base64, for those that are not JSON.")

    http_static_headers = models.JSONField(
        "static headers",
        default=dict,
        blank=True,
        help_text=(
            "Sent with every request. Keep a secret in the environment of the servers, and refer to it: "
            "<code>Authorization: Bearer ${TIDEWIRE_VAR_BACKEND_TOKEN}</code>."
        ),
    )
    http_status_to_code_transforms = models.JSONField(
        "status to code transforms",
        default=list,
        blank=True,
        help_text=(
            "What an HTTP status other than 200 becomes for the client, as a list of <code>{status_code, to_error: "
            "{code, message, temporary}}</code> or <code>{status_code, to_disconnect: {code, reason}}</code>. Polled "
            "keys have no client to tell: there it has no effect."
        ),
    )
    http_tls_enabled = flag(
        "Use the options below for <code>https</code>. Off: the authorities that this machine trusts."
    )
    http_tls_server_ca_pem = _pem("What your backend's certificate is verified against.")
    http_tls_server_name = text(
        "The host name in your backend's certificate, where it is not the URL's."
    )
    http_tls_cert_pem = _pem("The certificate that the server shows to your backend.")
    http_tls_key_pem = _pem("The key of that certificate.")
    http_tls_client_ca_pem = _pem("Of no use to a client; kept for files that have it.")
    http_tls_insecure_skip_verify = flag(
        "<strong>Insecure:</strong> believe any certificate. For development only."
    )

    grpc_tls_enabled = flag("TLS for gRPC.")
    grpc_tls_server_ca_pem = _pem("What your backend's certificate is verified against.")
    grpc_tls_server_name = text("The host name in your backend's certificate.")
    grpc_tls_cert_pem = _pem("The certificate that the server shows to your backend.")
    grpc_tls_key_pem = _pem("The key of that certificate.")
    grpc_tls_client_ca_pem = _pem("Of no use to a client; kept for files that have it.")
    grpc_tls_insecure_skip_verify = flag("<strong>Insecure:</strong> believe any certificate.")
    grpc_credentials_key = text("Metadata key of a credential that goes with each call.")
    grpc_credentials_value = text("That credential.")
    grpc_compression = flag("Compress calls with gzip.")
    grpc_static_metadata = models.JSONField(
        "static metadata", default=dict, blank=True, help_text="Sent with every call."
    )

    objects: ClassVar[ProxyQuerySet] = ProxyQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        """Names are unique, and none is that of the process options' own."""

        ordering: ClassVar = ["name"]
        verbose_name = "proxy"
        verbose_name_plural = "proxies"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(name__regex=r"^[-a-zA-Z0-9_.]{2,}$") & ~models.Q(name="default"),
                name="realtime_proxy_name",
                violation_error_message="use two or more of a-z A-Z 0-9 - _ . and not default",
            ),
        ]

    def __str__(self) -> str:
        """Show the name."""
        return self.name

    def namespaces(self) -> models.QuerySet[Namespace]:
        """Return the namespaces that name it, for whatever event."""
        named = models.Q()
        for column in _PROXY_NAME_COLUMNS:
            named |= models.Q(**{column: self.name})
        return Namespace.objects.filter(named)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """
        Delete a proxy.

        Raises:
            ProtectedError: A namespace names it.

        """
        used: set[models.Model] = set(self.namespaces())
        if used:
            raise models.ProtectedError(_PROXY_IS_USED, used)
        return super().delete(using=using, keep_parents=keep_parents)
