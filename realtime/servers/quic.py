"""
QUIC as aioquic speaks it, with bounds on what a peer can make this process keep.

aioquic (an extra, see ``requirements-http3.txt``) does the protocol; three of its habits don't fit a server that is open to
everybody. It doubles a window of its own whenever half of it is used, also where the bytes that are missing in between were
never sent, and reserves memory for all of it. It can't be told to stop reading. And it does not say how much of what it
was given has not been sent yet. None of what is overridden here is a documented contract: aioquic's version is pinned, and
``tests/unit/servers/test_quic.py`` holds it to what is used.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from realtime.conf.options import TLSOptions
from realtime.protocol.errors import ConfigError


# What a peer may have sent that was not taken yet: per stream, and per connection.
STREAM_WINDOW = 256 * 1024
CONNECTION_WINDOW = 1024 * 1024
# Without any packet for so long a peer is gone; clients are pinged more often than that.
IDLE_SECONDS = 60.0
# WebTransport wants QUIC's datagrams negotiated, though nothing of ours is sent in them.
_MAX_DATAGRAM_FRAME_BYTES = 65536


class BoundedQuic(QuicConnection):
    """A server's connection with windows that follow what was taken, not what was announced."""

    paused_streams: set[int]

    @classmethod
    def take_over(cls, connection: QuicConnection) -> BoundedQuic:
        """Make a connection that aioquic has just created one of these: its server offers no place for another class."""
        connection.__class__ = cls
        assert isinstance(connection, cls)
        connection.paused_streams = set()
        return connection

    def unsent_bytes(self, stream_id: int) -> int:
        """
        Return how much was written to a stream and never sent.

        What is under way does not count: the peer's window and the congestion window bound it, and on a long way there is
        always some.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        sender = stream.sender
        return max(0, sender._buffer_stop - sender.highest_offset)  # noqa: SLF001 -- it has no name for others

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        # 0 is for streams that only we send on.
        if stream.max_stream_data_local and stream.stream_id not in self.paused_streams:
            limit = receiver.starting_offset() + STREAM_WINDOW
            if limit - stream.max_stream_data_local >= STREAM_WINDOW // 2:
                stream.max_stream_data_local = limit
        highest = receiver.highest_offset
        receiver.highest_offset = 0  # so that nothing is doubled
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        limit = self._local_max_data
        used = limit.used
        if limit.value - used < CONNECTION_WINDOW // 2:
            limit.value = max(limit.value, used - self._unordered_bytes() + CONNECTION_WINDOW)
        limit.used = 0  # so that nothing is doubled
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _unordered_bytes(self) -> int:
        """Return what waits for bytes that come before it."""
        receivers = [stream.receiver for stream in self._streams.values()]
        return sum(
            receiver.highest_offset - receiver.starting_offset()
            for receiver in receivers
            if not receiver.is_finished
        )


def configuration(tls: TLSOptions) -> QuicConfiguration:
    """
    Make the configuration of a listener.

    Raises:
        ConfigError: The certificate or its key is missing or can't be used; the text doesn't show any of it.

    """
    made = QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        idle_timeout=IDLE_SECONDS,
        max_data=CONNECTION_WINDOW,
        max_stream_data=STREAM_WINDOW,
        max_datagram_frame_size=_MAX_DATAGRAM_FRAME_BYTES,
    )
    use_certificate(made, tls)
    return made


def use_certificate(made: QuicConfiguration, tls: TLSOptions) -> None:
    """Give a configuration another certificate, for connections to come; raises as ``configuration`` does."""
    if not tls.cert_pem or not tls.key_pem:
        raise ConfigError("http_server.http3 needs http_server.tls with cert_pem and key_pem")
    try:
        key = load_pem_private_key(tls.key_pem.encode(), None)
        certificate, *chain = load_pem_x509_certificates(tls.cert_pem.encode())
    except (TypeError, ValueError) as error:
        raise ConfigError("http_server.http3: certificate or key can't be used") from error
    made.private_key, made.certificate, made.certificate_chain = key, certificate, chain


def bind(listening: Iterable[socket.socket]) -> list[socket.socket]:
    """
    Bind UDP sockets beside listening TCP ones, on the same addresses and ports.

    Never shared between processes: the kernel deals datagrams out by address, and a client's address may change while its
    connection lives.

    Raises:
        OSError: A port is in use.

    """
    sockets: list[socket.socket] = []
    try:
        for beside in listening:
            opened = socket.socket(beside.family, socket.SOCK_DGRAM)
            sockets.append(opened)
            if beside.family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setblocking(False)
            opened.bind(beside.getsockname())
    except OSError as error:
        for each in sockets:
            each.close()
        port = beside.getsockname()[1]
        raise OSError(error.errno or errno.EIO, f"UDP port {port}: {error.strerror}") from error
    return sockets
