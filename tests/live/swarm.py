"""
Hundreds of clients in one process: WebSockets without any library, for tests that count and time what arrives.

``WebSocketClient`` is the socket: the upgrade, frames out, frames in. ``ProtocolClient`` speaks the client protocol on
it, in JSON or Protobuf, and hands every message on as the same dict. ``ApiConnection`` calls the server API over one
connection that stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast
from urllib.parse import urlsplit

from realtime.protocol import client_pb2
from tests.live.harness import API_KEY, WAIT_SECONDS, Server


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LOST = 1006  # the socket went away without a close frame

_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
_COMPRESSED = 0x40  # in a frame's first byte
_EMPTY_BLOCK = b"\0\0\xff\xff"
_DEFLATE = (
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover;"
    " client_no_context_takeover\r\n"
)


def client_frame(payload: bytes, opcode: int) -> bytes:
    """Frame a message; masked with zeros, so that it need not be copied byte by byte."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


class WebSocketClient(asyncio.Protocol):
    """
    One WebSocket.

    Attributes:
        opened: Done with the status of the answer to the upgrade, 0 if there was none.
        ended: Done with the close code, ``LOST`` without one.
        received_bytes: Of frames, as they were on the wire.

    """

    def __init__(self, url: str, *, opcode: int = TEXT, has_deflate: bool = False) -> None:
        self._url = urlsplit(url)
        self._opcode = opcode
        self._has_deflate = has_deflate
        self._buffer = bytearray()
        self._code = LOST
        self.transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.received_bytes = 0

    def on_payload(self, payload: bytes) -> None:
        """Take one message."""
        raise NotImplementedError

    def on_compressed(self, payload: bytes) -> None:
        """Take one message that was compressed without the context of others."""
        self.on_payload(zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _EMPTY_BLOCK))

    async def open(self, sock: socket.socket | None = None) -> int:
        """Connect, on ``sock`` if given, and return the status that the server answered with: 101, or it refused."""
        loop = asyncio.get_running_loop()
        if sock is None:
            await loop.create_connection(lambda: self, self._url.hostname, self._url.port)
        else:
            sock.setblocking(False)
            await loop.sock_connect(sock, (self._url.hostname, self._url.port))
            await loop.create_connection(lambda: self, sock=sock)
        return await self.opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        # uvloop's is none of asyncio's classes.
        self.transport = transport = cast("asyncio.Transport", transport)
        path = f"{self._url.path}?{self._url.query}" if self._url.query else self._url.path
        more = _DEFLATE if self._has_deflate else ""
        request = _REQUEST.format(path=path, host=self._url.netloc, more=more)
        transport.write(request.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        if not self.opened.done():
            self.opened.set_result(0)
        if not self.ended.done():
            self.ended.set_result(self._code)

    def data_received(self, data: bytes) -> None:
        """Read the answer to the upgrade, then frames."""
        buffer = self._buffer
        buffer += data
        if not self.opened.done():
            head, separator, rest = bytes(buffer).partition(b"\r\n\r\n")
            if not separator:
                return
            self._buffer = buffer = bytearray(rest)
            self.opened.set_result(int(head[9:12]))
        while (frame := self._take_frame()) is not None:
            self._on_frame(*frame)

    def _take_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size == 126:
            if len(buffer) < 4:
                return None
            size, start = int.from_bytes(buffer[2:4]), 4
        elif size == 127:
            if len(buffer) < 10:
                return None
            size, start = int.from_bytes(buffer[2:10]), 10
        end = start + size
        if len(buffer) < end:
            return None
        first, payload = buffer[0], bytes(buffer[start:end])
        del buffer[:end]
        self.received_bytes += end
        return first, payload

    def _on_frame(self, first: int, payload: bytes) -> None:
        assert first & 0x80, "the server sends whole messages"
        opcode = first & 0x0F
        if opcode in {TEXT, BINARY}:
            assert opcode == self._opcode, f"opcode {opcode}"
            if first & _COMPRESSED:
                self.on_compressed(payload)
            else:
                self.on_payload(payload)
        elif opcode == CLOSE:
            self._code = int.from_bytes(payload[:2]) if payload else 1005
            self._write(client_frame(payload, CLOSE))
            if self.transport is not None:
                self.transport.close()
        elif opcode == PING:
            self._write(client_frame(payload, PONG))

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def send_payload(self, *payloads: bytes) -> None:
        """Send messages, in one write."""
        self._write(b"".join(client_frame(payload, self._opcode) for payload in payloads))

    def close(self) -> None:
        """Say goodbye; the server closes the socket."""
        self._write(client_frame(struct.pack("!H", 1000), CLOSE))

    def kill(self) -> None:
        """Drop the socket at once, as a network would: with a reset, and without a word."""
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


Message = dict[str, Any]


class ProtocolClient(WebSocketClient):
    """
    One connection of the client protocol.

    Args:
        url: The server's ``websocket_url``.
        is_protobuf: The encoding.
        on_message: Takes every reply and push, in the shape of JSON with ``data`` read; pings are answered here.
        has_deflate: Offer compression.

    """

    def __init__(
        self,
        url: str,
        *,
        is_protobuf: bool,
        on_message: Callable[[Message], None] | None = None,
        has_deflate: bool = False,
    ) -> None:
        suffix = "?cf_protocol=protobuf" if is_protobuf else ""
        super().__init__(
            url + suffix, opcode=BINARY if is_protobuf else TEXT, has_deflate=has_deflate
        )
        self._is_protobuf = is_protobuf
        self.on_message = on_message
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0

    def number(self) -> int:
        """Return the next command's id."""
        self._last_id += 1
        return self._last_id

    def send(self, *commands: Message) -> None:
        """Send commands in one frame."""
        encode = _protobuf_command if self._is_protobuf else _json_command
        separator = b"" if self._is_protobuf else b"\n"
        self.send_payload(separator.join(map(encode, commands)))

    async def ask(self, method: str, /, **parameters: Any) -> Message:
        """Send one command and return its reply."""
        number = self.number()
        reply = self.expect(number)
        self.send({"id": number, method: parameters})
        return await asyncio.wait_for(reply, WAIT_SECONDS)

    def expect(self, number: int) -> asyncio.Future[Message]:
        """Return the future of a command's reply; to be called before it is sent."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        return future

    def on_payload(self, payload: bytes) -> None:
        """Read the messages of a frame."""
        messages = _protobuf_messages(payload) if self._is_protobuf else _json_messages(payload)
        for message in messages:
            if not message:
                self.send({})
                continue
            asked = self._asked.pop(message.get("id", 0), None)
            if asked is not None and not asked.done():
                asked.set_result(message)
            if self.on_message is not None:
                self.on_message(message)


def _json_command(command: Message) -> bytes:
    return json.dumps(command).encode()


def _json_messages(payload: bytes) -> Iterable[Message]:
    return map(json.loads, payload.split(b"\n"))


def _protobuf_command(command: Message) -> bytes:
    command = dict(command)
    if "publish" in command:
        publish = command["publish"]
        command["publish"] = {**publish, "data": json.dumps(publish["data"]).encode()}
    message = client_pb2.Command(**command).SerializeToString()
    return _varint(len(message)) + message


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _protobuf_messages(payload: bytes) -> Iterable[Message]:
    at = 0
    while at < len(payload):
        size = shift = 0
        while True:
            byte = payload[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield _plain(client_pb2.Reply.FromString(payload[at : at + size]))
        at += size


def _plain(reply: client_pb2.Reply) -> Message:
    """Give a reply the shape that it has in JSON; by hand, since thousands a second pass here."""
    message: Message = {"id": reply.id} if reply.id else {}
    for field, value in reply.ListFields():
        if field.name == "error":
            message["error"] = {"code": value.code, "message": value.message}
        elif field.name == "subscribe":
            message["subscribe"] = {
                "recoverable": value.recoverable,
                "epoch": value.epoch,
                "offset": value.offset,
                "recovered": value.recovered,
                "was_recovering": value.was_recovering,
                "publications": [_publication(one) for one in value.publications],
            }
        elif field.name == "push":
            message["push"] = _push(value)
        elif field.name != "id":
            message[field.name] = {}
    return message


def _push(push: client_pb2.Push) -> Message:
    if push.HasField("pub"):
        return {"channel": push.channel, "pub": _publication(push.pub)}
    if push.HasField("unsubscribe"):
        return {"channel": push.channel, "unsubscribe": {"code": push.unsubscribe.code}}
    return {"channel": push.channel, "other": str(push)}


def _publication(publication: client_pb2.Publication) -> Message:
    message: Message = {"data": json.loads(publication.data)}
    if publication.offset:
        message["offset"] = publication.offset
    return message


class ApiConnection:
    """The server API over one HTTP connection, one call after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, method: str, /, **parameters: Any) -> Any:
        """Call a method and return its result, which must be one."""
        body = json.dumps(parameters).encode()
        head = (
            f"POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        async with asyncio.timeout(WAIT_SECONDS):
            answer = await self._reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.partition(b":")[2])
                for line in answer.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            content = json.loads(await self._reader.readexactly(size))
        assert "result" in content, (answer, content)
        return content["result"]

    async def publish(self, channel: str, data: Any) -> int:
        """Publish and return the offset, 0 where the channel has no history."""
        result = await self.call("publish", channel=channel, data=data)
        return int(result.get("offset", 0))


@contextlib.asynccontextmanager
async def api_connection(server: Server) -> AsyncIterator[ApiConnection]:
    """Open a connection to a server's API."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield ApiConnection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
