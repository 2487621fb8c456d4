"""No reply is JSON that a payload broke, whatever message the payload stands in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw, inspect

from api.codec import UnencodablePayload, encode
from api.methods import BATCH, METHODS, Method
from realtime.protocol.api_messages import BatchResponse, Reply


# Would be two members in place of one.
BAD = Raw(b'1,"b":2')
BLANKS = Raw(b'{"a": [1, 2]}')


def holds_payload(kind: Any) -> bool:
    """Say whether a payload can stand in values of a type."""
    if isinstance(kind, inspect.StructType):
        return any(holds_payload(field.type) for field in kind.fields)
    if isinstance(kind, inspect.UnionType):
        return any(map(holds_payload, kind.types))
    if isinstance(kind, inspect.ListType):
        return holds_payload(kind.item_type)
    if isinstance(kind, inspect.DictType):
        return holds_payload(kind.value_type)
    return isinstance(kind, inspect.RawType)


def fill(kind: Any, payload: Raw) -> Any:
    """Make a value of a type, with the payload wherever it may hold one."""
    if isinstance(kind, inspect.StructType):
        return kind.cls(
            **{field.name: fill(field.type, payload) for field in kind.fields if needed(field)}
        )
    if isinstance(kind, inspect.UnionType):
        return fill(next(each for each in kind.types if holds_payload(each)), payload)
    if isinstance(kind, inspect.ListType):
        return [fill(kind.item_type, payload)]
    if isinstance(kind, inspect.DictType):
        return {"k": fill(kind.value_type, payload)}
    if isinstance(kind, inspect.RawType):
        return payload
    return {inspect.StrType: "x", inspect.IntType: 1}[type(kind)]


def needed(field: inspect.Field) -> bool:
    """Say whether a field is filled."""
    return field.required or holds_payload(field.type)


WITH_PAYLOADS = [
    method
    for method in METHODS.values()
    if method is not BATCH and holds_payload(inspect.type_info(method.result_type))
]


def results(method: Method, payload: Raw) -> list[msgspec.Struct]:
    """Make the method's result, alone and as the reply to a batch's command."""
    result = fill(inspect.type_info(method.result_type), payload)
    return [result, BatchResponse([Reply(**{method.name: result})])]


def test_there_are_results_with_payloads() -> None:
    """The tests below are about something."""
    names = {method.name for method in WITH_PAYLOADS}
    assert names >= {"history", "presence", "rpc", "map_read_state", "map_read_stream"}


@pytest.mark.parametrize("method", WITH_PAYLOADS, ids=lambda method: method.name)
def test_a_payload_that_is_no_json_is_noticed(method: Method) -> None:
    """It would otherwise be able to add members to the reply."""
    for result in results(method, BAD):
        with pytest.raises(UnencodablePayload):
            encode(result)


@pytest.mark.parametrize("method", WITH_PAYLOADS, ids=lambda method: method.name)
def test_blanks_of_a_payload_are_left_out(method: Method) -> None:
    """As Go's encoder does."""
    for result in results(method, BLANKS):
        text = encode(result)
        assert b'{"a":[1,2]}' in text
        assert b" " not in text
