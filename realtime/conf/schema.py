"""
``ProcessOptions`` seen as a flat table: one leaf per option, with its dotted path, kind and default.

Sources and printers work on paths; the nested structs exist once, in ``options``.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from realtime.conf.options import SECRET_FIELDS, Options, ProcessOptions


OptionsT = TypeVar("OptionsT", bound=Options)

ENVIRONMENT_PREFIX = "TIDEWIRE_"


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    One option.

    Attributes:
        path: Dotted, as ``client.ping_interval``.
        kind: ``bool``, ``int``, ``str``, ``strings``, ``objects``, or a kind from ``options``
            (``duration``, ``whole_seconds``, ``pem``, ``port_text``, ``url_prefix``, ``addresses``, ``string_map``).
        default: A value of the struct's field type.
        item: The struct of the elements, where the kind is ``objects``.

    """

    path: str
    kind: str
    default: Any
    item: type[Options] | None = None

    @property
    def is_secret(self) -> bool:
        """Whether the value may not be shown."""
        name = self.path.rpartition(".")[2]
        # The one "address" that hides nothing is where a listener binds.
        return name in SECRET_FIELDS and not (name == "address" and self.kind == "str")

    @property
    def env_name(self) -> str:
        """The environment variable that sets it."""
        return env_name(self.path)


def env_name(path: str) -> str:
    """Name the environment variable of a dotted path."""
    return ENVIRONMENT_PREFIX + path.upper().replace(".", "_")


@functools.cache
def leaves() -> Mapping[str, Leaf]:
    """List every option of ``ProcessOptions`` by path, in the order of the structs."""
    return types.MappingProxyType({leaf.path: leaf for leaf in _walk(ProcessOptions, "")})


@functools.cache
def sections() -> frozenset[str]:
    """List the dotted paths that are objects of options."""
    found: set[str] = set()
    for path in leaves():
        parts = path.split(".")
        found.update(".".join(parts[:depth]) for depth in range(1, len(parts)))
    return frozenset(found)


@functools.cache
def _hints(struct: type[Options]) -> Mapping[str, Any]:
    """Resolve a struct's annotations, which costs more than making one."""
    return typing.get_type_hints(struct, include_extras=True)


def fields_of(struct: type[Options]) -> Iterator[Leaf]:
    """List the leaves of one struct, nested ones with dotted paths."""
    return _walk(struct, "")


def _walk(struct: type[Options], prefix: str) -> Iterator[Leaf]:
    hints = _hints(struct)
    for item in msgspec.structs.fields(struct):
        path = f"{prefix}{item.name}"
        hint = hints[item.name]
        if isinstance(hint, type) and issubclass(hint, Options):
            yield from _walk(hint, f"{path}.")
            continue
        if item.default_factory is not msgspec.NODEFAULT:
            default = item.default_factory()
        else:
            default = item.default
        kind, element = _kind(hint)
        yield Leaf(path, kind, default, element)


def _kind(hint: Any) -> tuple[str, type[Options] | None]:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, msgspec.Meta) and note.extra:
                return note.extra["kind"], None
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        if element is str:
            return "strings", None
        return "objects", element
    return hint.__name__, None


def build(values: Mapping[str, Any]) -> ProcessOptions:
    """
    Make the nested structs from values by path.

    Args:
        values: Converted values; paths left out have their defaults.

    """
    return build_struct(ProcessOptions, values)


def build_struct(struct: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """Make one struct from values by dotted path."""
    hints = _hints(struct)
    arguments: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            arguments[head] = value
    for head, inner in nested.items():
        arguments[head] = build_struct(hints[head], inner)
    return struct(**arguments)


def read(options: Options, path: str) -> Any:
    """Read the value at a dotted path."""
    value: Any = options
    for name in path.split("."):
        value = getattr(value, name)
    return value
