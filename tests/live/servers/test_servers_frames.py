"""WebSockets on real sockets: what the extension promises, under both servers."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.live.servers.conftest import RunningServer, raw_client
from tests.unit.servers.certificates import self_signed
from tests.unit.servers.frames import client_frame


pytestmark = pytest.mark.timeout(120)

PATHS = ["/connection/echo", "/connection/plain"]


async def _close_of(websocket: object) -> tuple[int, str]:
    """Wait for the server's close frame."""
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(websocket.recv(), 30)  # type: ignore[attr-defined]
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.mark.parametrize("path", PATHS)
async def test_messages_come_back_as_they_were_sent(either: RunningServer, path: str) -> None:
    """Text and binary, empty and at the limit, whole and in fragments."""
    async with connect(either.url(path)) as websocket:
        for message in ["hello", "", "é" * 500, b"\x00\xff", b"x" * 1000]:
            await websocket.send(message)
            assert await websocket.recv() == message
        await websocket.send(["three ", "frag", "ments"])
        assert await websocket.recv() == "three fragments"


async def test_a_frame_may_come_in_any_pieces(either: RunningServer) -> None:
    """TCP has no frames."""
    async with raw_client(either) as client:
        await client.request("/connection/echo")
        for byte in client_frame(b"slow"):
            client.writer.write(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0.002)

        assert await client.exactly(6) == b"\x81\x04slow"


async def test_replies_to_one_read_leave_in_one_write(either: RunningServer) -> None:
    """A batch of commands costs one system call in each direction."""
    async with raw_client(either) as client:
        await client.request("/connection/echo")

        client.writer.write(b"".join(client_frame(b"%d" % n) for n in range(5)))
        first = await asyncio.wait_for(client.reader.read(1000), 30)

        assert first == b"".join(b"\x81\x01%d" % n for n in range(5))


async def test_what_the_client_offers_and_what_is_accepted(either: RunningServer) -> None:
    """Subprotocol, headers and the query make the round."""
    async with connect(
        either.url("/connection/echo?format=json"), subprotocols=["centrifuge-json", "other"]
    ) as websocket:
        assert websocket.subprotocol == "centrifuge-json"
        assert websocket.response is not None
        assert websocket.response.headers["x-query"] == "format=json"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/connection/deny", 403),
        ("/connection/teapot", 418),
        ("/connection/crash", 500),
    ],
)
async def test_a_handshake_can_be_refused(either: RunningServer, path: str, status: int) -> None:
    """A close before accepting is 403, a failure 500, and an application may choose."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(either.url(path))

    assert refused.value.response.status_code == status


@pytest.mark.parametrize("code", [1000, 3000, 3500, 4999])
async def test_code_and_reason_of_a_close_arrive(either: RunningServer, code: int) -> None:
    """SDKs decide by both; what was written before leaves first, what is written after never."""
    async with connect(either.url("/connection/actor")) as websocket:
        await websocket.send(f"close {code} because of é")

        assert await websocket.recv() == "before"
        assert await _close_of(websocket) == (code, "because of é")


async def test_a_close_through_asgi_has_its_reason(either: RunningServer) -> None:
    """Also where the consumer didn't attach."""
    async with connect(either.url("/connection/plain")) as websocket:
        await websocket.send("close 3500 invalid token")

        assert await _close_of(websocket) == (3500, "invalid token")


async def test_a_reason_is_cut_to_what_a_frame_holds(either: RunningServer) -> None:
    """At a character's end, so that the client can read it."""
    async with connect(either.url("/connection/actor")) as websocket:
        await websocket.send("close 3000 " + "é" * 100)

        assert await websocket.recv() == "before"
        assert await _close_of(websocket) == (3000, "é" * 61)


async def test_an_exception_of_the_handler_ends_the_connection_with_3004(
    either: RunningServer,
) -> None:
    """The client learns nothing of it, the log has the traceback."""
    async with connect(either.url("/connection/actor")) as websocket:
        await websocket.send("fail")

        assert await _close_of(websocket) == (3004, "internal server error")

    either.wait_for_events(["close", 3004])
    assert "RuntimeError: asked to" in either.log_text()


@pytest.mark.parametrize("path", PATHS)
async def test_a_message_over_the_limit_is_1009_with_an_empty_reason(
    either: RunningServer, path: str
) -> None:
    """SDKs take 1009 as final; the limit is over the sum of the fragments."""
    async with connect(either.url(path)) as websocket:
        await websocket.send("x" * 1001)
        assert await _close_of(websocket) == (1009, "")

    async with connect(either.url(path)) as websocket:
        await websocket.send(["x" * 600, "x" * 401])
        assert await _close_of(websocket) == (1009, "")


async def test_a_close_frame_outlives_a_message_that_is_far_too_big(serve: RunningServer) -> None:
    """Data that nobody reads must not reset the connection before the close frame is seen."""
    async with raw_client(serve) as client:
        await client.request("/connection/echo")

        client.writer.write(client_frame(b"x" * 5_000_000))
        received = await client.rest()

        assert received == b"\x88\x02\x03\xf1"


@pytest.mark.parametrize(
    ("sent", "code"), [(client_frame(b"\xff"), 1007), (client_frame(b"", 3), 1002)]
)
async def test_a_broken_frame_is_answered_with_its_code(
    either: RunningServer, sent: bytes, code: int
) -> None:
    """And without a reason."""
    async with raw_client(either) as client:
        await client.request("/connection/echo")

        client.writer.write(sent)

        assert await client.exactly(4) == b"\x88\x02" + code.to_bytes(2, "big")
        either.wait_for_events(["close", code])


async def test_a_ping_is_answered(either: RunningServer) -> None:
    """By the server itself."""
    async with connect(either.url("/connection/echo")) as websocket:
        await asyncio.wait_for(await websocket.ping(b"note"), 30)


async def test_while_reading_is_paused_messages_wait_in_order(either: RunningServer) -> None:
    """Those of the same read, and those that come meanwhile."""
    async with raw_client(either) as client:
        await client.request("/connection/actor")

        client.writer.write(client_frame(b"pause") + client_frame(b"one"))
        assert await client.exactly(8) == b"\x81\x06paused"
        client.writer.write(client_frame(b"two"))

        assert await client.exactly(19) == b"\x81\x07resumed\x81\x03one\x81\x03two"


async def test_the_writing_methods_keep_their_promises(either: RunningServer) -> None:
    """``uncork`` lets out what was collected, ``direct_write`` doesn't wait, frames may be ready-made."""
    async with connect(either.url("/connection/actor")) as websocket:
        await websocket.send("frames")

        received = [await websocket.recv() for _ in range(3)]

    assert received == ["collected", "direct", "compressed" * 10]


async def test_a_reader_that_stalls_is_reported_and_one_that_goes_on_too(
    either: RunningServer,
) -> None:
    """``on_pause`` from 64 KiB on, ``on_resume`` when the buffer is empty again."""
    either.get("/events?clear")
    size = 8_000_000
    async with raw_client(either) as client:
        await client.request("/connection/actor")

        client.writer.write(client_frame(b"fill %d" % size))
        either.wait_for_events(["pause"])
        received = await client.exactly(10 + size)

        assert received.count(b"x") == size
        assert either.wait_for_events(["resume"]).index(["pause"]) < either.events().index(
            ["resume"]
        )


async def test_a_handler_learns_how_its_connection_ended(either: RunningServer) -> None:
    """The peer's code; 1005 where it gave none; 1006 where it just went."""
    either.get("/events?clear")
    async with connect(either.url("/connection/echo")) as websocket:
        await websocket.close(4001, "bye")
    either.wait_for_events(["close", 4001])

    async with raw_client(either) as client:
        await client.request("/connection/echo")
        client.writer.write(client_frame(b"", 8))
        assert (await client.rest()).startswith(b"\x88")
        either.wait_for_events(["close", 1005])

    async with raw_client(either) as client:
        await client.request("/connection/echo")
    either.wait_for_events(["close", 1006])


async def test_an_asgi_consumer_learns_it_too(either: RunningServer) -> None:
    """By ``websocket.disconnect``."""
    either.get("/events?clear")
    async with connect(either.url("/connection/plain")) as websocket:
        await websocket.close(4001, "bye")

    either.wait_for_events(["disconnect", 4001])


async def test_a_client_may_leave_before_it_is_accepted(serve: RunningServer) -> None:
    """The application is told instead of waiting for ever."""
    async with raw_client(serve) as client:
        client.writer.write(
            b"GET /connection/mute HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        await client.writer.drain()

    serve.wait_for_events(["websocket.disconnect"])


async def test_frames_in_the_same_read_as_the_upgrade_are_not_lost(serve: RunningServer) -> None:
    """A client in a hurry sends before it has read the 101."""
    async with raw_client(serve) as client:
        head = await client.request(
            "/connection/echo", tail=client_frame(b"early") + client_frame(b"bird")
        )

        assert head.startswith(b"HTTP/1.1 101 ")
        assert await client.exactly(13) == b"\x81\x05early\x81\x04bird"


async def test_a_consumer_that_reads_by_asgi_is_not_flooded(serve: RunningServer) -> None:
    """Messages wait in the socket, and all arrive."""
    async with connect(serve.url("/connection/plain")) as websocket:
        for number in range(200):
            await websocket.send(str(number))

        assert [await websocket.recv() for _ in range(200)] == [str(n) for n in range(200)]


async def test_another_servers_route_still_works(serve: RunningServer) -> None:
    """WebSockets outside of our prefixes are uvicorn's own."""
    async with connect(serve.url("/other/echo")) as websocket:
        await websocket.send("hello")
        assert await websocket.recv() == "hello"


async def test_compression_is_spoken_with_a_client_that_wants_it(start: object) -> None:
    """Both directions, through the extension and through ASGI; a client without it is served as well."""
    server = start("serve", "--compression", "--limit", "1000")  # type: ignore[operator]
    for path in PATHS:
        async with connect(server.url(path)) as websocket:
            assert websocket.response is not None
            assert "permessage-deflate" in websocket.response.headers["sec-websocket-extensions"]
            await websocket.send("a" * 5000)  # some 30 bytes when compressed
            assert await websocket.recv() == "a" * 5000
        async with connect(server.url(path), compression=None) as websocket:
            await websocket.send("plain")
            assert await websocket.recv() == "plain"


async def test_a_message_that_unpacks_to_too_much_is_1009_with_a_reason(start: object) -> None:
    """Ten times the limit, unless another one is set."""
    server = start("serve", "--compression", "--limit", "1000")  # type: ignore[operator]
    async with connect(server.url("/connection/echo")) as websocket:
        await websocket.send("a" * 10001)

        assert await _close_of(websocket) == (1009, "message too big after decompression")


async def test_it_all_goes_over_tls(start: object, tmp_path: Path) -> None:
    """Messages, a message that is too big, and the end."""
    paths = [tmp_path / "certificate.pem", tmp_path / "key.pem"]
    for path, text in zip(paths, self_signed(), strict=True):
        path.write_text(text, encoding="ascii")
    server = start("serve", "--limit", "1000", "--tls", *map(str, paths))  # type: ignore[operator]
    context = ssl.create_default_context(cafile=str(paths[0]))
    context.check_hostname = False
    url = server.url("/connection/echo").replace("ws:", "wss:")
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)

    async with connect(url, ssl=context) as websocket:
        await websocket.send("secret")
        assert await websocket.recv() == "secret"
        await websocket.send("x" * 1001)
        assert await _close_of(websocket) == (1009, "")
    async with connect(url, ssl=context) as websocket:
        server.process.send_signal(signal.SIGTERM)
        assert await _close_of(websocket) == (3001, "shutdown")
    assert await asyncio.to_thread(server.process.wait, 15) == 0
