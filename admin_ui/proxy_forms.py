"""
The form of a proxy; what is valid is decided by ``realtime.conf.proxy_rules``.

What may be a secret (keys, credentials, values of headers) never goes into a page: a mask stands for it, and a mask that
comes back means that it stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst

from admin_ui.forms import new_errors, stored_options, stored_proxies
from realtime.conf import proxy_rows
from realtime.conf.options import ProxyOptions
from realtime.conf.proxy_rows import COLUMNS, LEAVES, MASK, shown_value
from realtime.conf.proxy_rules import find_problems, name_problem
from realtime.conf.snapshot import describe
from realtime.engines.tls import client_context
from realtime.models import Proxy
from realtime.protocol.errors import ConfigError
from realtime.proxies.python_caller import PREFIX, resolve


if TYPE_CHECKING:  # Django's own class takes no parameters at run time
    _ProxyModelForm = forms.ModelForm[Proxy]
else:
    _ProxyModelForm = forms.ModelForm

TRANSFORMS = "http_status_to_code_transforms"
MAPS = ("http_static_headers", "grpc_static_metadata")
CERTIFICATES = tuple(
    column for column in COLUMNS.values() if column.endswith(("cert_pem", "ca_pem"))
)
SECRETS = ("http_tls_key_pem", "grpc_tls_key_pem", "grpc_credentials_value")


def label_of(column: str) -> str:
    """Name an option for people, within its section."""
    words = column.replace("tls_", "TLS_" if column.endswith("enabled") else "")
    if column not in ("http_headers", "grpc_metadata"):
        words = words.removeprefix("http_").removeprefix("grpc_")
    for lower, right in (("pem", "PEM"), ("http", "HTTP"), ("_ca_", "_CA_"), ("grpc", "gRPC")):
        words = words.replace(lower, right)
    text = words.replace("_", " ")
    return text if text.startswith("gRPC") else capfirst(text)


def header_lines(pairs: Mapping[str, str]) -> str:
    """Show headers, one a line, with a mask for each value that may be a secret."""
    return "\n".join(f"{name}: {shown_value(value)}" for name, value in pairs.items())


class _LinesField(forms.CharField):
    """Text with something in each line; how many rows it shows is for what there is."""

    def __init__(self, *, placeholder: str, rows: int = 3, **options: Any) -> None:
        attributes = {
            "rows": rows,
            "cols": 60,
            "placeholder": placeholder,
            "spellcheck": "false",
            "autocomplete": "off",
        }
        super().__init__(required=False, widget=forms.Textarea(attrs=attributes), **options)


class NameLinesField(_LinesField):
    """A list of names, one a line."""

    def prepare_value(self, value: Any) -> Any:
        """Show a list as lines; what was typed in stays as it is."""
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        """Read the lines."""
        return [line.strip() for line in str(super().clean(value)).splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists, not spellings."""
        return bool(self.clean(data) != (initial or []))


class PairLinesField(_LinesField):
    """Values by name, ``Name: value`` a line; a value that is the mask is for the form to fill in."""

    def prepare_value(self, value: Any) -> Any:
        """Show pairs as lines; what was typed in stays as it is."""
        return header_lines(value) if isinstance(value, dict) else value

    def clean(self, value: Any) -> Any:
        """Read the lines."""
        pairs: dict[str, str] = {}
        for line in str(super().clean(value)).splitlines():
            name, colon, text = (part.strip() for part in line.partition(":"))
            if not line.strip():
                continue
            if not colon or not name:
                raise ValidationError("write one a line, as in Name: value", code="lines")
            if name in pairs:
                raise ValidationError(f"{name} is there twice", code="lines")
            pairs[name] = text
        return pairs

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare with what was shown."""
        return bool(data is None or self.prepare_value(initial or {}) != data.replace("\r\n", "\n"))


class SecretField(_LinesField):
    """A secret; the mask stands for the one that is stored."""

    def prepare_value(self, value: Any) -> Any:
        """Show that there is one."""
        return MASK if value else ""


class ObjectsField(forms.JSONField):
    """A list of objects, as JSON."""

    def __init__(self, **options: Any) -> None:
        placeholder = '[{"status_code": 403, "to_error": {"code": 403, "message": "forbidden"}}]'
        attributes = {"rows": 4, "cols": 60, "placeholder": placeholder, "spellcheck": "false"}
        super().__init__(required=False, widget=forms.Textarea(attrs=attributes), **options)

    def prepare_value(self, value: Any) -> Any:
        """Show nothing for an empty list."""
        return json.dumps(value, indent=2) if isinstance(value, list) and value else value or ""

    def clean(self, value: Any) -> Any:
        """Read nothing as an empty list."""
        found = super().clean(value)
        return [] if found is None else found


def _help(column: str) -> str:
    return str(Proxy.column(column).help_text)


class ProxyForm(_ProxyModelForm):
    """A proxy, valid only together with the namespaces that name it."""

    http_headers = NameLinesField(placeholder="Cookie", help_text=_help("http_headers"))
    emulated_headers = NameLinesField(
        placeholder="Authorization", help_text=_help("emulated_headers")
    )
    grpc_metadata = NameLinesField(placeholder="authorization", help_text=_help("grpc_metadata"))
    http_static_headers = PairLinesField(
        placeholder="Authorization: Bearer ${TIDEWIRE_VAR_BACKEND_TOKEN}",
        help_text=(
            f"One a line, as in <code>X-Source: tidewire</code>. {_help('http_static_headers')} Values that stand "
            f"here themselves are not shown again: <code>{MASK}</code> keeps the one that is stored."
        ),
    )
    grpc_static_metadata = PairLinesField(
        placeholder="name: value", help_text=_help("grpc_static_metadata")
    )
    http_tls_key_pem = SecretField(
        placeholder="-----BEGIN PRIVATE KEY-----",
        help_text=f"{_help('http_tls_key_pem')} It is not shown again: <code>{MASK}</code> keeps it.",
    )
    grpc_tls_key_pem = SecretField(
        placeholder="-----BEGIN PRIVATE KEY-----", help_text=_help("grpc_tls_key_pem")
    )
    grpc_credentials_value = SecretField(
        placeholder="", rows=1, help_text=_help("grpc_credentials_value")
    )
    http_status_to_code_transforms = ObjectsField(help_text=_help(TRANSFORMS))

    class Meta:
        """All options; the admin says in which order."""

        model = Proxy
        fields = ("name", *COLUMNS.values())
        widgets: ClassVar = {
            "endpoint": forms.TextInput(
                attrs={
                    "size": 70,
                    "placeholder": "https://app.example.com/poll",
                    "spellcheck": "false",
                }
            ),
            **{
                column: forms.Textarea(attrs={"rows": 3, "cols": 60, "spellcheck": "false"})
                for column in COLUMNS.values()
                if column.endswith("_pem")
            },
        }
        # For the read-only view, which shows some options by a method of the admin's.
        help_texts: ClassVar = {f"{column}_text": _help(column) for column in COLUMNS.values()}

    def __init__(self, *args: Any, **options: Any) -> None:
        """Name the options."""
        super().__init__(*args, **options)
        for column in COLUMNS.values():
            if column in self.fields:
                self.fields[column].label = label_of(column)

    def clean_name(self) -> str:
        """Put what is wrong with a name beside the name; the database's own constraint knows no field."""
        name: str = self.cleaned_data["name"]
        if problem := name_problem(name):
            raise ValidationError(problem, code="configuration")
        return name

    def clean(self) -> dict[str, Any]:
        """Put what is stored in the place of masks."""
        cleaned = super().clean() or {}
        for column in SECRETS:
            if cleaned.get(column) == MASK:
                cleaned[column] = getattr(self.instance, column)
        for column in CERTIFICATES:
            stored = getattr(self.instance, column)
            # A browser has line breaks of its own: what nobody edited stays as it was.
            if cleaned.get(column, "").split() == stored.split():
                cleaned[column] = stored
        for column in MAPS:
            if column in cleaned:
                self._unmask(column, cleaned[column])
        return cleaned

    def _unmask(self, column: str, pairs: dict[str, str]) -> None:
        stored = getattr(self.instance, column)
        for name, value in pairs.items():
            if value != MASK:
                continue
            if name not in stored:
                self.add_error(column, f"no value is stored for {name}: write it out")
                return
            pairs[name] = stored[name]

    def _post_clean(self) -> None:
        """Validate once each field is all right for itself."""
        before = self.instance.name if self.instance.pk else ""
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            self._judge()
        if not self.errors:
            self._judge_whole(before)

    def _judge(self) -> None:
        try:
            options = proxy_rows.options_of_row(self.instance)
        except ConfigError as error:
            self._refuse(str(error).removeprefix(f"proxies[{self.instance.name}]."))
            return
        for path, text in find_problems(options):
            self._refuse(f"{path}: {text}")
        if not self.errors:
            self.instance.http_status_to_code_transforms = proxy_rows.plain(
                LEAVES["http.status_to_code_transforms"], options.http.status_to_code_transforms
            )
            self._try_out(options)

    def _try_out(self, options: ProxyOptions) -> None:
        """Do what a server does when it takes the configuration."""
        try:
            if options.http.tls.enabled:
                client_context(options.http.tls, "http.tls")
        except ConfigError as error:
            self._refuse(str(error))
        try:
            if options.endpoint.startswith(PREFIX):
                resolve(options.endpoint)
        except ConfigError as error:
            self.add_error("endpoint", str(error))

    def _refuse(self, text: str) -> None:
        """Put ``path: text`` beside its field."""
        path, _, told = text.partition(": ")
        column = COLUMNS.get(path.partition(".[")[0])
        place = path.partition(".[")[2]
        if column in self.fields:
            self.add_error(column, f"[{place}: {told}" if place else told)
        else:
            self.add_error(None, text)

    def _judge_whole(self, before: str) -> None:
        """Refuse to rename what a namespace names."""
        names = (stored_proxies() - {before}) | {self.instance.name}
        namespaces, _ = stored_options()
        for problem in new_errors(namespaces, namespaces, names):
            self.add_error(None, describe(problem))
