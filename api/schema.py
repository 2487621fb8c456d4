"""
The OpenAPI 3 document, by drf-spectacular from the table of methods.

The names of schemas are the names of the messages. ``msgspec``'s own schema generator can't be used: it does not know
what to write for a payload's default.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from msgspec import inspect

from api.methods import BATCH, METHODS
from api.views import METHOD_VIEWS
from realtime.protocol import api_messages as messages
from realtime.version import VERSION


Schema = dict[str, Any]

_JSON = "application/json"

SETTINGS: dict[str, Any] = {
    "TITLE": "Tidewire server API",
    "DESCRIPTION": (
        "Publish into channels, write maps, act on the connections of users, read presence and history. "
        "A command that is refused is answered with status 200 and an `error`; "
        "`X-Centrifugo-Error-Mode: transport` turns that into an HTTP status with the bare error."
    ),
    "VERSION": VERSION,
    "POSTPROCESSING_HOOKS": ["api.schema.add_messages"],
    "PREPROCESSING_HOOKS": [],
    "SCHEMA_PATH_PREFIX": "",
}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells drf-spectacular of the API key."""

    target_class = "api.views.ApiKeyAuthentication"
    name = "ApiKeyAuth"

    def get_security_definition(self, auto_schema: object) -> Schema:
        """Name the header."""
        return {"type": "apiKey", "in": "header", "name": "X-API-Key"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells drf-spectacular of the session."""

    target_class = "api.views.StaffSessionAuthentication"
    name = "SessionAuth"

    def get_security_definition(self, auto_schema: object) -> Schema:
        """Name the cookie."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


def describe_views() -> None:
    """Attach to each method's view what the document says of it."""
    for name, view in METHOD_VIEWS.items():
        method = METHODS[name]
        extend_schema(
            operation_id=f"CentrifugoApi_{method.title}",
            tags=[method.tag],
            summary=method.summary,
            description=(method.request_type.__doc__ or "").strip(),
            request={_JSON: _reference(method.request_type.__name__)},
            responses={
                (200, _JSON): _reference(f"{method.title}Response"),
                (400, "text/plain"): {"type": "string", "description": "The body is malformed."},
                401: None,
                403: None,
                (500, "text/plain"): {"type": "string"},
            },
        )(view)


def add_messages(result: Schema, **_facts: object) -> Schema:
    """Add the schemas that the operations refer to; a hook of drf-spectacular."""
    schemas: dict[str, Schema] = {}
    for method in METHODS.values():
        _add(method.request_type, schemas)
        _add(method.result_type, schemas)
        if method is not BATCH:
            schemas[f"{method.title}Response"] = _envelope(method.result_type.__name__)
    _add(messages.Error, schemas)
    components = result.setdefault("components", {})
    components["schemas"] = dict(sorted(schemas.items()))
    return result


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _envelope(result: str) -> Schema:
    return {
        "type": "object",
        "description": "Exactly one of the two is there.",
        "properties": {"error": _reference("Error"), "result": _reference(result)},
    }


def _add(struct: type[Any], schemas: dict[str, Schema]) -> None:
    name = struct.__name__
    if name in schemas:
        return
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    schema: Schema = {"type": "object", "description": _description(struct)}
    schemas[name] = schema
    properties = {field.encode_name: _describe(field.type, schemas) for field in info.fields}
    if properties:
        schema["properties"] = properties
    required = [field.encode_name for field in info.fields if field.required]
    if required:
        schema["required"] = required


def _description(struct: type[Any]) -> str:
    lines = (struct.__doc__ or "").strip().splitlines()
    return " ".join(line.strip() for line in lines if line.strip())


def _describe(info: inspect.Type, schemas: dict[str, Schema]) -> Schema:
    if isinstance(info, inspect.UnionType):
        (info,) = (kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    if isinstance(info, inspect.StructType):
        _add(info.cls, schemas)
        return _reference(info.cls.__name__)
    if isinstance(info, inspect.DictType):
        return {"type": "object", "additionalProperties": _describe(info.value_type, schemas)}
    if isinstance(info, inspect.ListType):
        return {"type": "array", "items": _describe(info.item_type, schemas)}
    if isinstance(info, inspect.IntType):
        return _describe_integer(info)
    if isinstance(info, inspect.RawType):
        return {"description": "Any JSON value."}
    return {"type": _TYPES[type(info)]}


def _describe_integer(info: inspect.IntType) -> Schema:
    schema: Schema = {"type": "integer"}
    if info.ge is not None and info.ge >= 0:
        schema["minimum"] = info.ge
    is_short = info.le is not None and info.le < 2**32
    return {**schema, "format": "int32" if is_short and info.le == 2**31 - 1 else "int64"}


_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.FloatType: "number",
}
