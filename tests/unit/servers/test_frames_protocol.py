"""``FramesProtocol`` on a transport that records: what real sockets show too late or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.protocol.wire import frame
from realtime.servers import frames_protocol
from realtime.servers.extension import EXTENSION, FramesSettings
from realtime.servers.frames_protocol import FramesProtocol
from tests.unit.servers.frames import client_frame


class RecordingTransport(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self, *, can_half_close: bool = True) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_reading = True
        self.is_half_closed = False
        self.end = ""
        self.protocol: Any = None
        self._can_half_close = can_half_close

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 65536

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 42

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def can_write_eof(self) -> bool:
        return self._can_half_close

    def write_eof(self) -> None:
        self.is_half_closed = True

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"
        self.protocol.connection_lost(None)


class Recorder:
    """A handler that notes its calls and runs a script on messages."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.connection: FramesProtocol = None  # type: ignore[assignment]
        self.script: dict[bytes, Any] = {}

    def on_message(self, data: bytes, is_text: bool) -> None:
        self.calls.append(("message", data))
        self.script.get(data, lambda: None)()

    def on_close(self, code: int) -> None:
        self.calls.append(("close", code))

    def on_pause(self) -> None:
        self.calls.append(("pause",))

    def on_resume(self) -> None:
        self.calls.append(("resume",))

    def on_pong(self) -> None:
        self.calls.append(("pong",))


class Connected:
    """One attached connection."""

    def __init__(self, settings: FramesSettings | None = None, **transport: Any) -> None:
        self.transport = RecordingTransport(**transport)
        self.connections: set[Any] = set()
        self.protocol = FramesProtocol(settings or FramesSettings(), self.connections)
        self.handler = Recorder()

    async def start(self, tail: bytes = b"") -> Connected:
        """Accept and attach, as a consumer does."""

        async def consumer(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            self.handler.connection = scope["extensions"][EXTENSION].attach(self.handler)

        await self.run(consumer, tail)
        return self

    async def run(
        self, application: Any, tail: bytes = b"", headers: Any = ()
    ) -> asyncio.Task[None]:
        """Run any application."""
        scope = {"type": "websocket", "headers": list(headers)}
        task = self.protocol.start(self.transport, scope, b"key", tail, application)
        await _ticks()
        return task

    def read(self, *frames: bytes) -> None:
        """Have the transport read."""
        self.protocol.data_received(b"".join(frames))

    @property
    def sent(self) -> list[bytes]:
        """What was written after the response's head, write by write."""
        return self.transport.written[1:]


async def _ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_after_attaching_nothing_is_left_but_the_connection() -> None:
    """The consumer has returned, no task waits, the server knows the socket."""
    before = len(asyncio.all_tasks())
    connected = await Connected().start()

    assert len(asyncio.all_tasks()) == before
    assert connected.connections == {connected.protocol}
    assert connected.protocol._asgi is None


async def test_a_handler_is_never_called_before_attach_returned() -> None:
    """It doesn't know its connection until then, so early frames wait for the next tick."""
    connected = await Connected().start(tail=client_frame(b"early"))

    assert connected.handler.calls == [("message", b"early")]


async def test_the_socket_is_not_read_before_somebody_accepts() -> None:
    """What a client sends into an open handshake stays in the kernel."""
    connected = Connected()
    entered = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await entered.wait()

    task = await connected.run(slow, tail=client_frame(b"early"))

    assert not connected.transport.is_reading
    entered.set()
    await task


async def test_a_close_within_a_read_ends_the_reading() -> None:
    """What stands behind it in the same read isn't the handler's any more."""
    connected = await Connected().start()
    connected.handler.script[b"go"] = lambda: connected.protocol.close(3501, "bad request")

    connected.read(client_frame(b"one"), client_frame(b"go"), client_frame(b"two"))
    await _ticks()

    assert connected.handler.calls == [("message", b"one"), ("message", b"go"), ("close", 3501)]
    assert connected.sent == [b"\x88\x0d\x0d\xadbad request"]


async def test_the_peers_close_frame_is_seen_behind_what_is_ignored() -> None:
    """Then the socket is closed at once, without waiting for the timer."""
    connected = await Connected().start()
    connected.protocol.close(3000, "x")

    connected.read(client_frame(b"late"), client_frame(b"\x0b\xb8", 8))
    await _ticks()

    assert connected.handler.calls == [("close", 3000)]
    assert connected.transport.end == "closed"


async def test_a_peer_that_does_not_answer_a_close_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After five seconds; here they are shorter."""
    monkeypatch.setattr(frames_protocol, "CLOSE_TIMEOUT_SECONDS", 0.02)
    connected = await Connected().start()

    connected.protocol.close()
    await asyncio.sleep(0.05)

    assert connected.transport.end == "aborted"
    assert connected.connections == set()


async def test_a_peer_that_answers_and_does_not_read_is_dropped_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``close()`` alone waits for the buffer to drain, which such a peer can hold for ever."""
    monkeypatch.setattr(frames_protocol, "CLOSE_TIMEOUT_SECONDS", 0.02)
    connected = await Connected().start()

    connected.read(client_frame(b"", 8))
    await asyncio.sleep(0.05)

    assert connected.transport.end == "aborted"


async def test_everything_acts_once() -> None:
    """Closing twice, losing a closed connection, writing after the end."""
    connected = await Connected().start()

    connected.protocol.close(3000, "x")
    connected.protocol.close(3001, "y")
    connected.protocol.write(b"late")
    connected.protocol.direct_write(b"late")
    await _ticks()
    connected.protocol.connection_lost(None)
    connected.protocol.write(b"later")
    connected.protocol.close()

    assert connected.sent == [b"\x88\x03\x0b\xb8x"]
    assert connected.handler.calls == [("close", 3000)]


async def test_a_drop_sends_what_is_collected_and_no_close_frame() -> None:
    """The socket is closed behind it, and the handler told; a second drop does nothing."""
    connected = await Connected().start()

    def last_words() -> None:
        connected.protocol.write(b"last words")
        connected.protocol.drop()
        connected.protocol.write(b"late")

    connected.handler.script[b"go"] = last_words
    connected.read(client_frame(b"go"))
    connected.protocol.drop()
    await _ticks()

    assert connected.sent == [b"last words"]
    assert connected.transport.end == "closed"
    assert connected.handler.calls == [("message", b"go"), ("close", 1006)]


async def test_a_broken_frame_half_closes_and_throws_the_rest_away() -> None:
    """So that the close frame isn't overtaken by a reset."""
    connected = await Connected().start()

    connected.read(client_frame(b"good"), client_frame(b"", 3), client_frame(b"never"))
    connected.read(client_frame(b"never"))

    assert connected.sent == [b"\x88\x02\x03\xea"]
    assert connected.transport.is_half_closed
    assert connected.transport.end == ""
    assert connected.handler.calls == [("message", b"good"), ("close", 1002)]


async def test_replies_before_a_broken_frame_are_sent() -> None:
    """They were collected, and leave before the close frame."""
    connected = await Connected().start()
    connected.handler.script[b"good"] = lambda: connected.protocol.write(b"reply")

    connected.read(client_frame(b"good"), client_frame(b"", 3))

    assert connected.sent == [b"reply", b"\x88\x02\x03\xea"]


async def test_tls_has_no_half_close_and_is_dropped_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer has a second to take the close frame."""
    monkeypatch.setattr(frames_protocol, "_TLS_DRAIN_SECONDS", 0.02)
    connected = await Connected(can_half_close=False).start()

    connected.read(client_frame(b"", 3))
    await asyncio.sleep(0.05)

    assert connected.transport.end == "aborted"


@pytest.mark.parametrize("callback", ["on_pause", "on_resume"])
async def test_an_exception_of_any_callback_is_3004(callback: str) -> None:
    """Not just of ``on_message``."""
    connected = await Connected().start()

    def fail() -> None:
        raise RuntimeError

    setattr(connected.handler, callback, fail)
    connected.protocol.pause_writing()
    connected.protocol.resume_writing()
    await _ticks()

    assert connected.sent == [b"\x88\x17\x0b\xbcinternal server error"]
    assert connected.handler.calls[-1] == ("close", 3004)


async def test_an_exception_of_on_close_is_logged_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is nothing left to close."""
    connected = await Connected().start()

    def fail(_: int) -> None:
        raise RuntimeError

    connected.handler.on_close = fail  # type: ignore[method-assign]
    connected.protocol.connection_lost(None)

    assert "on_close failed" in caplog.text


async def test_pings_of_a_peer_that_does_not_read_do_not_pile_up() -> None:
    """The last one is answered when it reads again."""
    connected = await Connected().start()

    connected.protocol.pause_writing()
    connected.read(*(client_frame(b"%d" % n, 9) for n in range(100)))
    while_paused = list(connected.sent)
    connected.protocol.resume_writing()

    assert while_paused == []
    assert connected.sent == [frame(b"99", 10)]


async def test_an_exception_resets_no_later_read() -> None:
    """After a failure the decoder has lost its place, so nothing is read any more."""
    connected = await Connected().start()

    def fail() -> None:
        raise RuntimeError

    connected.handler.script[b"fail"] = fail
    connected.read(client_frame(b"fail"), client_frame(b"one"))
    connected.read(client_frame(b"two"))

    assert connected.handler.calls == [("message", b"fail"), ("close", 3004)]


async def test_a_pause_right_after_attaching_holds() -> None:
    """A client may be told to wait before its first message."""
    connected = Connected()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][EXTENSION].attach(connected.handler).pause_reading()

    await connected.run(consumer, tail=client_frame(b"early"))
    before = list(connected.handler.calls)
    connected.protocol.resume_reading()
    await _ticks()

    assert before == []
    assert connected.handler.calls == [("message", b"early")]
    assert connected.transport.is_reading


async def test_attaching_comes_once_and_in_time() -> None:
    """After accepting, before receiving, and not twice."""
    errors = []

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        extension = scope["extensions"][EXTENSION]
        with pytest.raises(RuntimeError) as early:
            extension.attach(Recorder())
        await receive()
        await send({"type": "websocket.accept"})
        extension.attach(Recorder())
        with pytest.raises(RuntimeError) as twice:
            extension.attach(Recorder())
        errors.extend([early.value, twice.value])

    await (await Connected().run(consumer))

    assert len(errors) == 2


async def test_attaching_to_a_connection_that_is_gone_tells_the_handler() -> None:
    """Or it would wait for ever for the end that it missed."""
    connected = Connected()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connected.protocol.connection_lost(None)
        scope["extensions"][EXTENSION].attach(connected.handler)

    await connected.run(consumer)

    assert connected.handler.calls == [("close", 1006)]


async def test_an_application_that_returns_without_attaching_closes() -> None:
    """Returning means handed over only after ``attach``."""
    connected = Connected()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    await connected.run(consumer)

    assert connected.sent == [b"\x88\x02\x03\xe8"]


async def test_an_application_that_fails_after_accepting_is_1011() -> None:
    """As other servers do."""
    connected = Connected()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise RuntimeError

    await connected.run(consumer)

    assert connected.sent == [b"\x88\x02\x03\xf3"]


async def test_a_slow_reader_holds_up_the_application_that_writes_to_it() -> None:
    """``send`` waits; it raises where the connection ends meanwhile."""
    connected = Connected()
    outcome = []

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connected.protocol.pause_writing()
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            outcome.append(error)
            raise

    task = await connected.run(consumer)
    assert not task.done()
    connected.protocol.connection_lost(None)
    await task

    assert len(outcome) == 1


async def test_an_asgi_application_with_much_to_read_pauses_the_socket() -> None:
    """Its queue is bounded."""
    connected = Connected()
    go_on = asyncio.Event()
    seen = []

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        await go_on.wait()
        seen.extend([await receive() for _ in range(99)])

    task = await connected.run(consumer)
    connected.read(*(client_frame(b"%d" % n) for n in range(100)))
    await _ticks()
    assert not connected.transport.is_reading
    go_on.set()
    await task

    assert [event["text"] for event in seen] == [str(n) for n in range(100)]


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "websocket.send", "text": "before accept"}],
        [{"type": "websocket.accept"}, {"type": "websocket.accept"}],
        [
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.accept"},
        ],
    ],
)
async def test_messages_out_of_order_are_the_applications_error(
    messages: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """It gets a ``RuntimeError``, its client no broken bytes."""
    connected = Connected()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    await connected.run(consumer)

    assert "the websocket application failed" in caplog.text


async def test_compression_is_a_property_of_the_connection() -> None:
    """It is known to the hub, and small messages are spared."""
    settings = FramesSettings(has_compression=True, compression_min_bytes=10)
    connected = Connected(settings)

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][EXTENSION].attach(connected.handler)

    await connected.run(consumer, headers=[(b"sec-websocket-extensions", b"permessage-deflate")])

    assert connected.protocol.negotiated_compression
    assert connected.protocol.compress_frame(b"x" * 10) == frame(b"x" * 10)
    assert connected.protocol.compress_frame(b"x" * 11)[0] == 0xC1
    plain = await Connected(settings).start()
    assert not plain.protocol.negotiated_compression
    assert plain.protocol.compress_frame(b"x" * 11) == frame(b"x" * 11)


async def test_the_servers_shutdown_ends_a_connection_in_every_state() -> None:
    """503 in the handshake, 3001 to those attached, 1012 to the others."""
    waiting, attached, plain = Connected(), await Connected().start(), Connected()

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def accept(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    await waiting.run(hang)
    await plain.run(accept)
    for connected in (waiting, attached, plain):
        connected.protocol.shutdown()
    await _ticks()

    assert waiting.transport.written[0].startswith(b"HTTP/1.1 503 ")
    assert attached.sent == [b"\x88\x0a\x0b\xb9shutdown"]
    assert plain.sent == [b"\x88\x02\x03\xf4"]
    for connected in (waiting, plain):
        connected.protocol.connection_lost(None)
    await _ticks()


async def test_a_pong_frame_is_told() -> None:
    """Whoever sends PING frames learns that they are answered."""
    connected = await Connected().start()

    connected.read(client_frame(b"", 10))

    assert connected.handler.calls == [("pong",)]
