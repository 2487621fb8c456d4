"""A WebTransport client without any SDK: aioquic's client side, one session, one bidirectional stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)


PATH = "/connection/webtransport"
WAIT_SECONDS = 30.0
CLOSE_SESSION = 0x2843


class Http3Client(QuicConnectionProtocol):
    """One QUIC connection; everything that happened on it, by stream."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic, enable_webtransport=True)
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.streams: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: set[int] = set()
        self.is_terminated = False
        self._happened = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Write down what happened."""
        if isinstance(event, StreamReset):
            self.resets.add(event.stream_id)
        elif isinstance(event, ConnectionTerminated):
            self.is_terminated = True
        if isinstance(event, StreamDataReceived) and event.stream_id in self.streams:
            # aioquic's HTTP layer would look for frames in what comes back on a stream of ours.
            self.streams[event.stream_id] += event.data
            if event.end_stream:
                self.ended.add(event.stream_id)
        else:
            for each in self.http.handle_event(event):
                self._on_http_event(each)
        self._happened.set()

    def _on_http_event(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.heads[event.stream_id] = dict(event.headers)
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
        if getattr(event, "stream_ended", False):
            self.ended.add(event.stream_id)

    async def until(self, condition: Any, seconds: float = WAIT_SECONDS) -> Any:
        """Wait until ``condition()`` is true and return what it gave."""
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                self._happened.clear()
                await self._happened.wait()
        return found

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        protocol: str = "",
    ) -> int:
        """Send a request and return its stream; the body's end is left open for an extended CONNECT."""
        stream_id = self._quic.get_next_available_stream_id()
        pseudo = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
            *([(b":protocol", protocol.encode())] if protocol else []),
        ]
        plain = [(name.encode(), value.encode()) for name, value in headers]
        ends = not protocol and body is None
        self.http.send_headers(stream_id, pseudo + plain, end_stream=ends)
        if body is not None:
            self.http.send_data(stream_id, body, end_stream=True)
        self.transmit()
        return stream_id

    async def answer(self, stream_id: int) -> dict[bytes, bytes]:
        """Wait for a response's head."""
        await self.until(lambda: stream_id in self.heads)
        return self.heads[stream_id]

    async def fetch(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a plain request and return status, headers and body."""
        stream_id = self.request(method, path, headers, body)
        head = await self.answer(stream_id)
        await self.until(lambda: stream_id in self.ended)
        return int(head[b":status"]), head, self.bodies.get(stream_id, b"")


class Session:
    """One session of a client, with its stream."""

    def __init__(self, client: Http3Client, session_id: int, *, is_protobuf: bool = False) -> None:
        self.client = client
        self.session_id = session_id
        self.is_protobuf = is_protobuf
        self.stream_id = client.http.create_webtransport_stream(session_id)
        client.streams[self.stream_id] = b""
        self._taken = 0

    def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send bytes on the stream."""
        self.client._quic.send_stream_data(self.stream_id, data, is_last)
        self.client.transmit()

    def send(self, *commands: Any) -> None:
        """Send JSON commands."""
        self.write(b"".join(json.dumps(command).encode() + b"\n" for command in commands))

    def _next(self) -> bytes | None:
        data = self.client.streams[self.stream_id]
        if self.is_protobuf:
            size, start, shift = 0, self._taken, 0
            while start < len(data):
                size |= (data[start] & 0x7F) << shift
                start, shift = start + 1, shift + 7
                if data[start - 1] < 0x80:
                    break
            else:
                return None
            if start + size > len(data):
                return None
            self._taken = start + size
            return data[start : start + size]
        end = data.find(b"\n", self._taken)
        if end < 0:
            return None
        line = data[self._taken : end]
        self._taken = end + 1
        return line

    async def receive_bytes(self, seconds: float = WAIT_SECONDS) -> bytes:
        """Return the next message, without its framing."""
        found: list[bytes] = []

        def look() -> bool:
            message = self._next()
            if message is not None:
                found.append(message)
            return bool(found)

        await self.client.until(look, seconds)
        return found[0]

    async def receive(self, seconds: float = WAIT_SECONDS) -> Any:
        """Return the next JSON reply or push."""
        return json.loads(await self.receive_bytes(seconds))

    async def ask(self, command: Any) -> Any:
        """Send a command and return the next message."""
        self.send(command)
        return await self.receive()

    async def connect(self, **parameters: Any) -> Any:
        """Connect and return the result."""
        reply = await self.ask({"id": 1, "connect": parameters})
        assert "connect" in reply, reply
        return reply["connect"]

    async def closed(self, seconds: float = WAIT_SECONDS) -> tuple[int, str]:
        """Wait for the session's close and return its code and reason."""
        await self.client.until(lambda: self.session_id in self.client.ended, seconds)
        buffer = Buffer(data=self.client.bodies.get(self.session_id, b""))
        kind, size = buffer.pull_uint_var(), buffer.pull_uint_var()
        assert kind == CLOSE_SESSION
        return buffer.pull_uint32(), buffer.pull_bytes(size - 4).decode()


@contextlib.asynccontextmanager
async def http3(port: int, **settings: Any) -> AsyncIterator[Http3Client]:
    """Open a connection to a server of this machine, whose certificate is not looked at."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        server_name="localhost",
        verify_mode=ssl.CERT_NONE,
        max_datagram_frame_size=65536,
        **settings,
    )
    async with connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=Http3Client
    ) as client:
        assert isinstance(client, Http3Client)
        yield client


async def open_session(
    client: Http3Client, *, is_protobuf: bool = False, headers: Sequence[tuple[str, str]] = ()
) -> Session:
    """Begin a session and its stream."""
    path = PATH + ("?cf_protocol=protobuf" if is_protobuf else "")
    session_id = client.request("CONNECT", path, headers, protocol="webtransport")
    head = await client.answer(session_id)
    assert head[b":status"] == b"200", head
    return Session(client, session_id, is_protobuf=is_protobuf)
