"""Forms of the admin; what is valid is decided by ``realtime.namespaces.validation``, never here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst

from admin_ui.fields import NamesField
from realtime.conf.loader import get_options
from realtime.conf.snapshot import describe, make_candidate
from realtime.handlers import SHARED_POLL_REFRESH, handler_names
from realtime.models import OPTION_COLUMNS, ApiKey, Namespace, Proxy
from realtime.namespaces.names import is_namespace_name
from realtime.namespaces.options import ChannelOptions
from realtime.namespaces.validation import DEFAULT_PROXY, DELTA_TYPES, Problem, validate
from realtime.protocol.api_messages import Command
from realtime.protocol.errors import ConfigError


# A scope is the name of a method; the commands of a batch are all methods but ``batch`` itself.
API_METHODS = tuple(sorted(field.name for field in msgspec.structs.fields(Command)))


if TYPE_CHECKING:  # Django's own classes take no parameters at run time
    _NamespaceModelForm = forms.ModelForm[Namespace]
    _ApiKeyModelForm = forms.ModelForm[ApiKey]
else:
    _NamespaceModelForm = _ApiKeyModelForm = forms.ModelForm


def stored_options(*, but: int | None = None) -> tuple[dict[str, ChannelOptions], list[str]]:
    """
    Read the namespaces, but the one with the primary key ``but``.

    Returns:
        Options by name, and what is wrong with rows that can't be read (they are left out).

    """
    options: dict[str, ChannelOptions] = {}
    broken: list[str] = []
    for row in Namespace.objects.exclude(pk=but) if but else Namespace.objects.all():
        try:
            options[row.name] = row.to_options()
        except ConfigError as error:
            broken.append(str(error))
    return options, broken


def label_of(column: str) -> str:
    """Name an option for people."""
    words = column.replace("_ttl", "_TTL").replace("join_leave", "join/leave").split("_")
    return capfirst(" ".join(words))


def stored_proxies() -> set[str]:
    """Return the names of the proxies that are rows."""
    return set(Proxy.objects.values_list("name", flat=True))


def judge(
    namespaces: Mapping[str, ChannelOptions], proxies: Collection[str] | None = None
) -> list[Problem]:
    """Validate a whole configuration under the options of this process; with the proxies that there are, or other ones."""
    names = stored_proxies() if proxies is None else proxies
    return validate(make_candidate(get_options(), namespaces, names))


def new_errors(
    before: Mapping[str, ChannelOptions],
    after: Mapping[str, ChannelOptions],
    proxies: Collection[str] | None = None,
) -> list[Problem]:
    """
    Return what an edit breaks; ``proxies`` are those after it, where they are others.

    What was wrong before it does not count: else nobody could mend two broken rows, one after the other.
    """
    known = {problem for problem in judge(before) if not problem.is_warning}
    return [
        problem
        for problem in judge(after, proxies)
        if not problem.is_warning and problem not in known
    ]


def proxy_choices(event: str, current: str, *, may_be_empty: bool) -> list[tuple[str, str]]:
    """Offer the proxies that an event can be asked of, and what a row has now even if it is gone."""
    rows = stored_proxies()
    handled = handler_names(event) - {DEFAULT_PROXY}
    choices = [("" if may_be_empty else DEFAULT_PROXY, DEFAULT_PROXY)]
    choices += [(name, name) for name in sorted(rows)]
    choices += [(name, f"{name} (in Python)") for name in sorted(handled - rows)]
    if current not in dict(choices):
        choices.append(
            (current, current if current == DEFAULT_PROXY else f"{current} (there is none)")
        )
    return choices


class NamespaceForm(_NamespaceModelForm):
    """A namespace, valid only together with all others."""

    allowed_delta_types = NamesField(
        names=[(name, name.capitalize()) for name in DELTA_TYPES],
        required=False,
        help_text=Namespace.column("allowed_delta_types").help_text,
    )

    class Meta:
        """All options; the admin says in which order."""

        model = Namespace
        fields = "__all__"
        # For the read-only view, which shows durations by a method of the admin's.
        labels: ClassVar = {column: label_of(column) for column in OPTION_COLUMNS.values()}
        help_texts: ClassVar = {
            f"{column}_text": Namespace.column(column).help_text
            for column in OPTION_COLUMNS.values()
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        """Ask for a name where the row needs one."""
        super().__init__(*args, **options)
        self.warnings: list[str] = []
        if "name" in self.fields:
            self.fields["name"].required = True
        for column, field in self.fields.items():
            if column.endswith("proxy_name"):
                current = getattr(self.instance, column)
                is_poll = column == "shared_poll_proxy_name"
                event = SHARED_POLL_REFRESH if is_poll else column.removesuffix("_proxy_name")
                # A plain list: what is chosen is judged with the rest, and refused in the same words as a file.
                field.widget = forms.Select(
                    choices=proxy_choices(event, current, may_be_empty=is_poll)
                )

    def clean_name(self) -> str:
        """Put what is wrong with a name beside the name; the database's own constraint knows no field."""
        name: str = self.cleaned_data["name"]
        if not is_namespace_name(name):
            raise ValidationError("must be two or more of a-z A-Z 0-9 - _ .", code="configuration")
        return name

    def _post_clean(self) -> None:
        """Validate the configuration that would result, once each field is all right for itself."""
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            self._judge_whole()

    def _judge_whole(self) -> None:
        others, broken = stored_options(but=self.instance.pk)
        name = self.instance.name
        try:
            before, _ = stored_options()
            after = {**others, name: self.instance.to_options()}
        except ConfigError as error:
            self.add_error(None, str(error))
            return
        refused = new_errors(before, after)
        for problem in judge(after):
            is_here = problem.namespace == name and problem.field in {"name", *OPTION_COLUMNS}
            if is_here and problem.is_warning:
                self.warnings.append(f"{problem.field} {problem.message}")
            elif is_here:
                self._refuse(problem)
            elif problem in refused:
                self.add_error(None, describe(problem))
            elif not problem.is_warning:
                broken.append(describe(problem))
        self.warnings += [
            f"The configuration as a whole is not in force, since it is not valid yet: {problem}"
            for problem in broken
        ]

    def _refuse(self, problem: Problem) -> None:
        column = OPTION_COLUMNS.get(problem.field, problem.field)
        if column in self.fields:
            self.add_error(column, ValidationError(problem.message, code="configuration"))
        else:
            self.add_error(None, describe(problem))


class ApiKeyForm(_ApiKeyModelForm):
    """An API key's name and scopes."""

    scopes = NamesField(
        names=[
            (ApiKey.ALL_METHODS, "Everything"),
            *((name, name) for name in API_METHODS),
        ],
        help_text="The API methods that the key may call. Everything includes those that are added later.",
    )

    class Meta:
        """What a person may say of a key."""

        model = ApiKey
        fields = ("name", "scopes")

    def clean_scopes(self) -> list[str]:
        """Everything includes all others."""
        scopes: list[str] = self.cleaned_data["scopes"]
        return [ApiKey.ALL_METHODS] if ApiKey.ALL_METHODS in scopes else scopes


class ExplainForm(forms.Form):
    """Which decision is to be explained."""

    OPERATIONS: ClassVar[Sequence[tuple[str, str]]] = (
        ("subscribe", "Subscribe"),
        ("publish", "Publish"),
        ("remove", "Remove a key"),
        ("history", "Read history"),
        ("presence", "Read presence"),
    )

    operation = forms.ChoiceField(choices=OPERATIONS, initial="subscribe")
    channel = forms.CharField(
        max_length=1024,
        strip=False,
        required=False,
        widget=forms.TextInput(
            attrs={"size": 40, "placeholder": "chat:lobby", "spellcheck": "false"}
        ),
    )
    user = forms.CharField(
        max_length=1024,
        required=False,
        strip=False,
        label="User ID",
        help_text="Empty: an anonymous connection.",
        widget=forms.TextInput(attrs={"size": 40, "spellcheck": "false"}),
    )
    connection_token = forms.CharField(
        required=False,
        help_text="In place of a user ID. It is verified with the keys of this process, and not shown again.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "autocomplete": "off"}),
    )
    subscription_token = forms.CharField(
        required=False,
        help_text="What the client sends with its subscribe, if anything.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "autocomplete": "off"}),
    )
    is_subscribed = forms.BooleanField(required=False, label="Is subscribed to the channel")
    payload = forms.CharField(
        required=False,
        strip=False,
        initial="{}",
        label="Data",
        help_text="What is published; it may have to be JSON.",
        widget=forms.TextInput(attrs={"size": 40, "spellcheck": "false"}),
    )
