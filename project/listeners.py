"""The ports beside the ASGI server's own: gRPC's, where the options ask for them."""

from __future__ import annotations

from realtime import backends, bootstrap
from realtime.conf.loader import get_options
from realtime.conf.options import ProcessOptions
from realtime.protocol.errors import ConfigError
from realtime.servers.application import Listener
from realtime.servers.limits import missing_packages


def make_listeners(options: ProcessOptions) -> list[Listener]:
    """
    Make what the options ask for.

    Raises:
        ConfigError: ``grpcio`` is missing.

    """
    if problems := missing_packages(options):
        raise ConfigError("\n".join(problems))
    listeners: list[Listener] = []
    if options.grpc_api.enabled:
        listeners.append(_api_listener(options))
    if options.uni_grpc.enabled:
        listeners.append(_uni_listener(options))
    return listeners


# The imports stand where a port is asked for: grpcio is no requirement of the server.


def _api_listener(options: ProcessOptions) -> Listener:
    from api.grpc_service import GRPCService
    from realtime.servers.grpc_listener import GRPCListener, GRPCSettings

    settings = GRPCSettings(
        "grpc_api",
        options.grpc_api.address,
        options.grpc_api.port,
        tls=lambda: get_options().grpc_api.tls,
        max_receive_bytes=options.grpc_api.max_receive_message_size,
        # Two processes on the memory engine would each have half of the clients.
        is_shared=backends.uses_redis(options),
        has_reflection=options.grpc_api.reflection,
    )
    return GRPCListener(settings, GRPCService(bootstrap.get_node))


def _uni_listener(options: ProcessOptions) -> Listener:
    from realtime.consumers.uni_grpc import CORE_OPTIONS, UniStreamService
    from realtime.servers.grpc_listener import GRPCListener, GRPCSettings

    settings = GRPCSettings(
        "uni_grpc",
        options.uni_grpc.address,
        options.uni_grpc.port,
        tls=lambda: get_options().uni_grpc.tls,
        max_receive_bytes=options.uni_grpc.max_receive_message_size,
        is_shared=backends.uses_redis(options),
        core=CORE_OPTIONS,
    )
    return GRPCListener(settings, UniStreamService(bootstrap.get_node))
