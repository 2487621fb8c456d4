"""Options of what is served to whom: the API's doors and the clients' transports."""

from __future__ import annotations

from realtime.conf.options.base import Duration, Options, TLSOptions, UrlPrefix


class HTTPAPIOptions(Options, frozen=True, kw_only=True):
    """
    The server API over HTTP.

    Attributes:
        key: The key of the configuration; further ones are rows in the admin.
        error_mode: Empty (errors in a 200) or ``transport`` (errors as HTTP statuses).
        external: With an internal port, whether the external one has the API too.
        insecure: No key is asked for; for development.

    """

    disabled: bool = False
    handler_prefix: UrlPrefix = "/api"
    key: str = ""
    error_mode: str = ""
    external: bool = False
    insecure: bool = False


class GRPCAPIOptions(Options, frozen=True, kw_only=True):
    """
    The server API over GRPC, on a port of its own.

    Attributes:
        error_mode: Empty (errors in responses) or ``transport`` (errors as GRPC statuses).
        address: Empty means every interface.
        key: With an empty one no key is asked for.
        reflection: Whether clients may ask for the schema, as grpcurl does.
        max_receive_message_size: Bytes; 0 means 4 MiB.

    """

    enabled: bool = False
    error_mode: str = ""
    address: str = ""
    port: int = 10000
    key: str = ""
    tls: TLSOptions = TLSOptions()
    reflection: bool = False
    max_receive_message_size: int = 0


class WebSocketOptions(Options, frozen=True, kw_only=True):
    """
    The WebSocket transport.

    Attributes:
        compression: Offer permessage-deflate. A message is compressed once for all who take it: some 10 us for 800
            bytes, nothing per delivery, 0.9 KB per socket. Messages from clients are unpacked one by one.
        compression_min_size: Bytes up to which messages stay as they are.
        write_timeout: How long a reader may stay paused before it is disconnected (3009).
        write_delay: In place of ``client.write_delay`` on this transport; 0 means that one (Tidewire's own).
        message_size_limit: Bytes of a client's message; over it the close code is 1009.
        decompressed_message_size_limit: The same after decompression; 0 means ten times that.
        read_buffer_size: Accepted; means nothing here, as do ``write_buffer_size`` and the pool.

    """

    disabled: bool = False
    handler_prefix: UrlPrefix = "/connection/websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = 1.0
    write_delay: Duration = 0.0
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0


class SSEOptions(Options, frozen=True, kw_only=True):
    """The SSE transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/sse"
    max_request_body_size: int = 65536


class HTTPStreamOptions(Options, frozen=True, kw_only=True):
    """The HTTP streaming transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/http_stream"
    max_request_body_size: int = 65536


class EmulationOptions(Options, frozen=True, kw_only=True):
    """Where clients of SSE and HTTP streaming send their commands."""

    handler_prefix: UrlPrefix = "/emulation"
    max_request_body_size: int = 65536


class WebTransportOptions(Options, frozen=True, kw_only=True):
    """
    The WebTransport transport, which needs ``http_server.http3``.

    Attributes:
        message_size_limit: Bytes of a client's message; over it the connection ends with 3501.

    """

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/webtransport"
    message_size_limit: int = 65536


class UniWebSocketOptions(Options, frozen=True, kw_only=True):
    """The unidirectional WebSocket transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = 1.0
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0
    disable_closing_handshake: bool = False
    disable_disconnect_push: bool = False
    join_push_messages: bool = False


class HTTPResponse(Options, frozen=True, kw_only=True):
    """What an HTTP client sees instead of a connect error."""

    status_code: int = 0
    body: str = ""


class HTTPResponseTransform(Options, frozen=True, kw_only=True):
    """A connect error's code and the HTTP response for it."""

    code: int = 0
    to: HTTPResponse = HTTPResponse()


class HTTPResponseTransformsOptions(Options, frozen=True, kw_only=True):
    """How connect errors are told over HTTP."""

    enabled: bool = False
    transforms: tuple[HTTPResponseTransform, ...] = ()


class UniSSEOptions(Options, frozen=True, kw_only=True):
    """The unidirectional SSE transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_sse"
    max_request_body_size: int = 65536
    connect_code_to_http_response: HTTPResponseTransformsOptions = HTTPResponseTransformsOptions()


class UniHTTPStreamOptions(Options, frozen=True, kw_only=True):
    """The unidirectional HTTP streaming transport."""

    enabled: bool = False
    handler_prefix: UrlPrefix = "/connection/uni_http_stream"
    max_request_body_size: int = 65536
    connect_code_to_http_response: HTTPResponseTransformsOptions = HTTPResponseTransformsOptions()


class UniGRPCOptions(Options, frozen=True, kw_only=True):
    """
    The unidirectional GRPC transport, on a port of its own.

    Attributes:
        address: Empty means every interface.
        max_receive_message_size: Bytes; 0 means 4 MiB.

    """

    enabled: bool = False
    address: str = ""
    port: int = 11000
    max_receive_message_size: int = 0
    tls: TLSOptions = TLSOptions()
