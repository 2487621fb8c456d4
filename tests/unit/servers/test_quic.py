"""What is overridden in aioquic: these tests hold its version to that."""

from __future__ import annotations

import socket
import ssl

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived

from realtime.conf.options import TLSOptions
from realtime.protocol.errors import ConfigError
from realtime.servers.quic import (
    CONNECTION_WINDOW,
    STREAM_WINDOW,
    BoundedQuic,
    bind,
    configuration,
)
from tests.unit.servers.certificates import self_signed


ADDRESSES = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}


class Pair:
    """A client and a server that hear each other at once, on a clock of their own."""

    def __init__(self, *, is_bounded: bool = True) -> None:
        certificate, key = self_signed()
        self.now = 0.0
        self.client = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE
            )
        )
        self.client.connect(ADDRESSES["server"], now=self.now)
        server = QuicConnection(
            configuration=configuration(TLSOptions(cert_pem=certificate, key_pem=key)),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )
        self.server = BoundedQuic.take_over(server) if is_bounded else server
        self.received: dict[int, int] = {}
        self.pump()

    def pump(self) -> None:
        """Exchange datagrams until there are none; count what the server's streams brought."""
        idle = 0
        while idle < 5:
            moved = 0
            for data, _ in self.client.datagrams_to_send(now=self.now):
                self.server.receive_datagram(data, ADDRESSES["client"], now=self.now)
                moved += 1
            while (event := self.server.next_event()) is not None:
                if isinstance(event, StreamDataReceived):
                    count = self.received.get(event.stream_id, 0)
                    self.received[event.stream_id] = count + len(event.data)
            for data, _ in self.server.datagrams_to_send(now=self.now):
                self.client.receive_datagram(data, ADDRESSES["server"], now=self.now)
                moved += 1
            while self.client.next_event() is not None:
                pass
            # Pacing and delayed acknowledgements wait for the clock.
            self.now += 0.03
            for each in (self.client, self.server):
                timer = each.get_timer()
                if timer is not None and timer <= self.now:
                    each.handle_timer(now=self.now)
            idle = 0 if moved else idle + 1


def _leave_a_gap(pair: Pair) -> tuple[int, int]:
    """Be a peer whose stream's last byte came and hardly any before; return the windows that it is given then."""
    pair.client.send_stream_data(0, b"x")
    pair.pump()
    stream = pair.server._streams[0]
    stream.receiver.highest_offset = STREAM_WINDOW - 1
    pair.server._local_max_data.used = STREAM_WINDOW - 1
    pair.client.send_ping(1)
    pair.pump()
    return stream.max_stream_data_local, pair.server._local_max_data.value


def test_a_gap_widens_no_window() -> None:
    """aioquic's own class doubles it, for a gigabyte after twelve such bytes: that is why there is another one."""
    assert _leave_a_gap(Pair(is_bounded=False))[0] == 2 * STREAM_WINDOW

    stream_window, connection_window = _leave_a_gap(Pair())

    assert stream_window == STREAM_WINDOW
    assert connection_window == CONNECTION_WINDOW


def test_what_is_taken_makes_room() -> None:
    """Many times the windows' size gets through."""
    pair = Pair()
    size = 3 * CONNECTION_WINDOW

    pair.client.send_stream_data(0, b"x" * size, end_stream=True)
    pair.pump()

    assert pair.received == {0: size}


def test_a_paused_stream_brings_its_window_and_no_more() -> None:
    """The others go on, and so does it when it is wanted again."""
    pair = Pair()
    pair.server.paused_streams.add(0)
    size = 4 * STREAM_WINDOW

    pair.client.send_stream_data(0, b"x" * size)
    pair.client.send_stream_data(4, b"y" * size)
    pair.pump()
    assert pair.received == {0: STREAM_WINDOW, 4: size}

    pair.server.paused_streams.discard(0)
    pair.client.send_ping(1)
    pair.pump()
    assert pair.received == {0: size, 4: size}


def test_unsent_bytes_are_those_that_never_left() -> None:
    """Not those under way; and none of a stream that is over."""
    pair = Pair()
    pair.client.send_stream_data(0, b"x", end_stream=True)
    pair.pump()

    pair.server.send_stream_data(0, b"x" * 100_000)
    assert pair.server.unsent_bytes(0) == 100_000
    pair.server.datagrams_to_send(now=pair.now)  # lost, and sent all the same
    assert 0 < pair.server.unsent_bytes(0) < 100_000
    pair.pump()
    assert pair.server.unsent_bytes(0) == 0
    assert pair.server.unsent_bytes(400) == 0


def test_wrong_certificates_are_the_operators_error() -> None:
    """And the error shows no key."""
    certificate, key = self_signed()
    with pytest.raises(ConfigError, match="cert_pem"):
        configuration(TLSOptions(key_pem=key))
    with pytest.raises(ConfigError) as raised:
        configuration(TLSOptions(cert_pem=certificate, key_pem="secret stuff"))
    assert "secret" not in str(raised.value)


def test_udp_is_bound_beside_tcp() -> None:
    """On the same address and port, by nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (bound,) = bind([listening])
        with bound:
            assert bound.getsockname() == listening.getsockname()
            with pytest.raises(OSError, match=f"UDP port {listening.getsockname()[1]}"):
                bind([listening])
