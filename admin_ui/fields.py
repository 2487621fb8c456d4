"""Form fields for what configuration rows hold and HTML has no input for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from realtime.conf.durations import format_duration, parse_duration


# The parts at the end that say nothing: "1h0m0s" reads as "1h".
_NO_SECONDS = re.compile(r"(?<=m)0s$")
_NO_MINUTES = re.compile(r"(?<=h)0m$")


def short_duration(seconds: float) -> str:
    """Print seconds without the units that are zero: ``5m``, ``720h``, ``1h0m30s``, and ``0``."""
    if not seconds:
        return "0"
    return _NO_MINUTES.sub("", _NO_SECONDS.sub("", format_duration(seconds)))


class DurationFormField(forms.CharField):
    """
    A duration as people write it, ``1h30m``, and as float seconds in Python.

    Nothing, and 0, are no duration: 0.0.
    """

    widget = forms.TextInput(attrs={"size": 12, "placeholder": "5m, 1h30m", "spellcheck": "false"})

    def __init__(self, **options: Any) -> None:
        """Take a model field's options; an empty input is always allowed."""
        options.update(required=False)
        for name in ("min_value", "max_value", "step_size"):
            options.pop(name, None)
        super().__init__(**options)

    def prepare_value(self, value: Any) -> Any:
        """Show seconds as text; what was typed in stays as it is."""
        if isinstance(value, int | float):
            return short_duration(value) if value else ""
        return value

    def to_python(self, value: Any) -> Any:
        """Read the text."""
        text = str(super().to_python(value)).replace(" ", "")
        if not text:
            return 0.0
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValidationError(str(error), code="duration") from error

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare durations, not spellings."""
        try:
            return bool(self.to_python(data) != (initial or 0.0))
        except ValidationError:
            return True


class NamesField(forms.MultipleChoiceField):
    """Some of a list of names, as a list of strings in the order of the choices."""

    widget = forms.CheckboxSelectMultiple

    def __init__(self, *, names: Sequence[tuple[str, str]], **options: Any) -> None:
        """Take ``(name, label)`` pairs."""
        super().__init__(choices=names, **options)
        self.names = [name for name, _ in names]

    def clean(self, value: Any) -> list[str]:
        """Put the names in order, so that equal choices are equal lists."""
        chosen = super().clean(value)
        return [name for name in self.names if name in chosen]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare without order."""
        return set(initial or []) != set(data or [])
