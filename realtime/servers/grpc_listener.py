"""
A port that speaks gRPC, on the loop of the node.

gRPC's core accepts, reads and writes in threads of its own and wakes the loop by a socket pair, so that it goes with
every asyncio loop, uvloop's too; what answers is a coroutine beside everything else that the node does. Needs ``grpcio``
(requirements-grpc.txt), which is why nothing but ``project`` imports this module, and only where a port is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from realtime.conf.options import TLSOptions
from realtime.protocol.errors import ConfigError
from realtime.servers.tls import server_context


logger = logging.getLogger(__name__)

# Newer clients ask by this name first; the messages of both are the same.
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class _WithoutLeavers(logging.Filter):
    """
    Keeps out of the log that a peer left while the end of its call was on its way to it.

    gRPC reports that as an error, with a traceback; it is an ordinary thing where readers are slow.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be logged."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


_GRPC_LOGGER = logging.getLogger("grpc._cython.cygrpc")
_without_leavers = _WithoutLeavers()  # one, so that a second listener does not add another


class Service(Protocol):
    """What a port serves."""

    @property
    def name(self) -> str:
        """The full name."""

    @property
    def schema(self) -> bytes:
        """The serialized file descriptor."""

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Return the methods by name."""


@dataclass(frozen=True, slots=True)
class GRPCSettings:
    """
    How to listen.

    Attributes:
        section: Of the options, for texts: ``grpc_api``.
        address: Empty means every interface.
        port: 0 takes a free one.
        tls: Read at every handshake, so that renewed certificates are used once the options have been read again;
            whether there is TLS at all, and client certificates, is settled at the start.
        max_receive_bytes: The largest request; 0 leaves gRPC's limit of 4 MiB.
        is_shared: Whether other processes may listen on the port too (``SO_REUSEPORT``).
        has_reflection: Whether clients may ask for the schema.
        core: More options of gRPC's core.

    """

    section: str
    address: str
    port: int
    tls: Callable[[], TLSOptions]
    max_receive_bytes: int = 0
    is_shared: bool = False
    has_reflection: bool = False
    core: Mapping[str, int] = field(default_factory=dict)


class GRPCListener:
    """
    One port with one service, health checks, and, where it is asked for, reflection.

    Args:
        settings: How to listen.
        service: What to serve.

    Attributes:
        port: The port in use, once started.

    """

    def __init__(self, settings: GRPCSettings, service: Service) -> None:
        self.port = 0
        self._settings = settings
        self._service = service
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()

    async def start(self) -> None:
        """
        Listen.

        Raises:
            ConfigError: The port can't be had, or the certificate can't be used.

        """
        _GRPC_LOGGER.addFilter(_without_leavers)
        server = grpc.aio.server(options=self._core_options())
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(self._service.name, self._service.handlers())]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.has_reflection:
            self._reflect(server)
        self.port = self._bind(server)
        for name in ("", self._service.name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._server = server
        logger.info("serving %s on %s", self._settings.section, self._where(self.port))

    async def stop(self, grace: float) -> None:
        """
        Take no more calls, and end those that run after ``grace`` seconds; may be called twice.

        It returns as soon as none runs any more.
        """
        server, self._server = self._server, None
        if server is not None:
            await self._health.enter_graceful_shutdown()
            await server.stop(grace)

    def _core_options(self) -> list[tuple[str, int]]:
        options = {"grpc.so_reuseport": int(self._settings.is_shared), **self._settings.core}
        if self._settings.max_receive_bytes:
            options["grpc.max_receive_message_length"] = self._settings.max_receive_bytes
        return list(options.items())

    def _bind(self, server: grpc.aio.Server) -> int:
        where = self._where(self._settings.port)
        try:
            if self._settings.tls().enabled:
                return server.add_secure_port(where, self._credentials())
            return server.add_insecure_port(where)
        except RuntimeError as error:  # all that gRPC says, whatever the reason
            message = f"{self._settings.section}: can't listen on {where}: {error}"
            raise ConfigError(message) from error

    def _where(self, port: int) -> str:
        address = self._settings.address or "::"  # gRPC listens on IPv4 by that too
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def _credentials(self) -> grpc.ServerCredentials:
        section, tls = self._settings.section, self._settings.tls
        known = tls()
        # gRPC only logs what is wrong with a certificate, and only at the first handshake.
        server_context(known, f"{section}.tls")
        is_mutual = bool(known.client_ca_pem)

        def configuration(options: TLSOptions) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration(
                [(options.key_pem.encode(), options.cert_pem.encode())],
                options.client_ca_pem.encode() if is_mutual else None,
            )

        def renewed() -> Any:
            """Return what is new or ``None``, which the stubs lack; called by gRPC's threads before each handshake."""
            nonlocal known
            options = tls()
            if options == known:
                return None
            known = options
            try:
                server_context(options, f"{section}.tls")
            except ConfigError:
                logger.exception("the new certificate is refused, the one before stays in force")
                return None
            return configuration(options)

        return grpc.dynamic_ssl_server_credentials(configuration(known), renewed, is_mutual)

    def _reflect(self, server: grpc.aio.Server) -> None:
        pool = DescriptorPool()
        for schema in (
            self._service.schema,
            health_pb2.DESCRIPTOR.serialized_pb,
            reflection_pb2.DESCRIPTOR.serialized_pb,
        ):
            pool.AddSerializedFile(schema)
        names = (self._service.name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool)
        servicer = reflection.aio.ReflectionServicer(names, pool)
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    _REFLECTION_V1, {"ServerReflectionInfo": handler}
                )
            ]
        )
