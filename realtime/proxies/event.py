"""What the application can be asked about, and what all answers have in common."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Raw

from realtime.protocol.errors import ProxyError
from realtime.protocol.go_json import MalformedJson, normalise
from realtime.protocol.messages import EMPTY, payload


_LONGEST_MESSAGE = 200  # characters of the application's own text that go into a log

ResultT = TypeVar("ResultT")
StructT = TypeVar("StructT", bound=msgspec.Struct)

Uint32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
# msgspec takes no bound above 2**63 - 1, which no counter reaches.
Uint64 = Annotated[int, msgspec.Meta(ge=0)]


class AnswerError(msgspec.Struct, frozen=True):
    """The application refuses; ``code`` is one of its own, 400 to 1999."""

    code: Uint32 = 0
    message: str = ""
    temporary: bool = False


class AnswerDisconnect(msgspec.Struct, frozen=True):
    """The application ends the connection that the event is about."""

    code: Uint32 = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer(Generic[ResultT]):
    """
    What the application said; at most one of the three counts, ``disconnect`` first, then ``error``.

    Attributes:
        result: ``None`` where there is none, which each event takes its own way.

    """

    result: ResultT | None = None
    error: AnswerError | None = None
    disconnect: AnswerDisconnect | None = None

    def check_accepted(self) -> None:
        """Take an error for a failure, where no client waits for it; raises ``ProxyError``."""
        if self.error is not None:
            text = self.error.message[:_LONGEST_MESSAGE]
            raise ProxyError(f"the application answered error {self.error.code}: {text!r}")


@dataclass(frozen=True, slots=True)
class Event(Generic[ResultT]):
    """
    One kind of question.

    Attributes:
        name: As in the configuration (``channel.proxy.<name>``) and in figures.
        from_json: Reads ``result`` of an answer, the text of a JSON object; raises ``ProxyError``.
        from_python: Reads what a handler returned, but ``None``; raises ``TypeError`` or ``ValueError``.
        is_repeatable: Whether asking twice does no harm: then a call that was lost with its connection is sent again.

    """

    name: str
    from_json: Callable[[bytes], ResultT]
    from_python: Callable[[Any], ResultT]
    is_repeatable: bool = False


class Caller(Protocol):
    """
    Carries requests to one endpoint.

    Calls may overlap. A caller knows no timeout: it is cancelled, and lets go of everything then.
    """

    protocol: str
    """``http`` or ``python``, for figures."""

    async def call(self, event: Event[ResultT], request: msgspec.Struct) -> Answer[ResultT]:
        """Ask; raises ``ProxyError`` where there is no answer, or none that can be read."""

    async def close(self) -> None:
        """Let go of connections, after the calls under way; may be called twice."""


class _Envelope(msgspec.Struct, frozen=True):
    result: Raw = EMPTY
    error: AnswerError | None = None
    disconnect: AnswerDisconnect | None = None


def read_answer(event: Event[ResultT], body: bytes) -> Answer[ResultT]:
    """
    Read an answer.

    Raises:
        ProxyError: It is no JSON object of the right shape.

    """
    envelope = decode_object(_Envelope, body, "the answer")
    if envelope.disconnect is not None or envelope.error is not None:
        return Answer(error=envelope.error, disconnect=envelope.disconnect)
    result = bytes(envelope.result)
    if not result or result == b"null":
        return Answer()
    return Answer(event.from_json(result))


def decode_object(kind: type[StructT], text: bytes, what: str) -> StructT:
    """
    Read a JSON object; unknown names and nulls are skipped, as Go does.

    Args:
        kind: What to make of it.
        text: The JSON; payloads in it keep their text.
        what: The text's name, for errors.

    Raises:
        ProxyError: It is none; the text itself is not in the error, for it may hold secrets.

    """
    try:
        # The strict decoder does not look into payloads for what is not UTF-8.
        if not text.isascii():
            text.decode()
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(normalise(kind, text), type=kind)
    except (msgspec.MsgspecError, MalformedJson, RecursionError) as error:
        detail = f": {error}" if isinstance(error, msgspec.ValidationError) else ""
        message = f"{what} is no JSON object of the expected shape{detail}"
        raise ProxyError(message) from error


def choose_payload(raw: Raw, base64: str | None) -> Raw:
    """
    Return a payload: base64 wins, and a raw one is cut loose from the answer, which it would keep alive.

    Raises:
        ProxyError: It is no base64.

    """
    if not base64:
        return raw.copy() if raw else EMPTY
    try:
        return payload(binascii.a2b_base64(base64, strict_mode=True))
    except ValueError as error:  # not ASCII, or not base64
        raise ProxyError("the answer has base64 that can't be decoded") from error
