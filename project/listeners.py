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
    if not options.grpc_api.enabled:
        return []
    if problems := missing_packages(options):
        raise ConfigError("\n".join(problems))
    # Not before it is asked for: grpcio is no requirement of the server.
    from api.grpc_service import GRPCService
    from realtime.servers.grpc_listener import GRPCListener, GRPCSettings

    api = options.grpc_api
    settings = GRPCSettings(
        "grpc_api",
        api.address,
        api.port,
        tls=lambda: get_options().grpc_api.tls,
        max_receive_bytes=api.max_receive_message_size,
        # Two processes on the memory engine would each have half of the clients.
        is_shared=backends.uses_redis(options),
        has_reflection=api.reflection,
    )
    return [GRPCListener(settings, GRPCService(bootstrap.get_node))]
