"""
Build and keep this process's node.

A server starts it at ``lifespan.startup``, or with the first connection where it has no lifespan. A process that serves nobody
(a shell, a command, a worker) has none: ``running_node`` is None there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.conf import settings

from realtime.auth.tokens import TokenVerifier
from realtime.backends import Backends, has_lone_maps, make_backends
from realtime.conf import loader
from realtime.conf.loader import get_options, log_notices
from realtime.conf.options import ProcessOptions
from realtime.conf.snapshot import (
    Configuration,
    configuration_changed,
    load_configuration,
    read_revision,
)
from realtime.engines.tls import client_context
from realtime.handlers import EVENTS, Handler
from realtime.node.control import ReloadConfiguration
from realtime.node.node import Node
from realtime.protocol.errors import ConfigError
from realtime.proxies.figures import ProxyFigures
from realtime.proxies.registry import ProxyRegistry
from realtime.version import VERSION


logger = logging.getLogger(__name__)

POLL_INTERVAL = 1.0  # seconds; one indexed read, which finds changes made by other processes

# Handlers that are not async, at a time; each thread has a database connection of its own while it works.
HANDLER_THREADS = 16

_node: Node | None = None
_backends: Backends | None = None
_proxies: ProxyRegistry | None = None
_starting: asyncio.Lock | None = None
_poller: asyncio.Task[None] | None = None


def running_node() -> Node | None:
    """Return this process's node if it has one."""
    return _node


def get_node() -> Node:
    """Return this process's node; raises ``RuntimeError`` in a process that serves nobody."""
    if _node is None:
        message = "no node runs in this process: it starts with the server"
        raise RuntimeError(message)
    return _node


async def ensure_node() -> Node:
    """Return the node, started now if this server did not say when it started."""
    return _node if _node is not None else await start_node()


async def start_node() -> Node:
    """Build and start the node; a second call returns the same one."""
    global _node, _backends, _proxies, _poller, _starting
    if _starting is None:
        _starting = asyncio.Lock()
    async with _starting:
        if _node is None:
            node, backends, proxies = await _build()
            await _start(node, backends, proxies)
            _node, _backends, _proxies = node, backends, proxies
            _poller = asyncio.get_running_loop().create_task(_poll(node))
            configuration_changed.connect(_on_change, dispatch_uid="realtime.bootstrap")
            logger.info("node started", extra={"node": node.name})
    return _node


async def stop_node(*, drain: bool = True) -> None:
    """Drain and stop the node; may be called twice."""
    global _node, _backends, _proxies, _poller, _starting
    node, _node = _node, None
    backends, _backends = _backends, None
    proxies, _proxies = _proxies, None
    _starting = None
    configuration_changed.disconnect(dispatch_uid="realtime.bootstrap")
    if _poller is not None:
        _poller.cancel()
        _poller = None
    if node is not None:
        if drain and node.connections:
            await node.drain(min(node.options.shutdown.timeout, len(node.connections) / 1000))
        await node.stop()
    if proxies is not None:
        await proxies.close()
    if backends is not None:
        await backends.close()


async def _start(node: Node, backends: Backends, proxies: ProxyRegistry) -> None:
    try:
        await backends.start()
        await node.start()
        await backends.check_support()
    except BaseException:
        await node.stop()
        await proxies.close()
        await backends.close()
        raise


def node_name(options: ProcessOptions) -> str:
    """Return what a node is called: ``node.name``, or host and port as the reference has it."""
    return options.node.name or f"{socket.gethostname()}_{options.http_server.port}"


async def _build() -> tuple[Node, Backends, ProxyRegistry]:
    options = get_options()
    log_notices()
    figures = ProxyFigures()
    proxies = ProxyRegistry(
        make_context=client_context, run_in_thread=_run_in_thread, figures=figures
    )
    configuration = await _load(proxies)
    node_id = str(uuid.uuid4())
    if has_lone_maps(options, configuration.table):
        logger.warning(
            "maps live in this process alone, and other nodes have others: set map_broker.type to redis"
        )
    backends = await make_backends(options, getattr(settings, "CHANNEL_LAYERS", {}), node_id)
    connection_verifier, subscription_verifier = _verifiers(options)
    node = Node(
        options=options,
        configuration=configuration,
        broker=backends.broker,
        presence=backends.presence,
        control_bus=backends.control_bus,
        maps=backends.maps,
        connection_verifier=connection_verifier,
        subscription_verifier=subscription_verifier,
        version=VERSION,
        name=node_name(options),
        node_id=node_id,
        reload=functools.partial(_load, proxies),
        proxy_figures=figures,
        notices=backends.notices,
    )
    node.polls.find_backend = proxies.find_shared_poll
    node.empty_caches.find_backend = proxies.find_cache_empty
    return node, backends, proxies


def _verifiers(options: ProcessOptions) -> tuple[TokenVerifier, TokenVerifier]:
    """Make what verifies connection tokens, and subscription tokens."""
    is_insecure = options.client.insecure_skip_token_signature_verify
    for_connections = TokenVerifier(options.client.token, skip_signature=is_insecure)
    if not options.client.subscription_token.enabled:
        return for_connections, for_connections
    for_subscriptions = TokenVerifier(options.client.subscription_token, skip_signature=is_insecure)
    return for_connections, for_subscriptions


async def reload_options() -> None:
    """
    Read every source of configuration again, and go on with what it says.

    Listeners, the engine, log levels and timers keep what they were started with. Options that do not validate change
    nothing.
    """
    node = _node
    if node is None:
        return
    logger.info("reloading configuration")
    try:
        options = await sync_to_async(loader.reload)()
    except ConfigError:
        logger.exception("the new configuration is refused, the one before stays in force")
        return
    node.take_options(options, *_verifiers(options))
    if await node.reload():
        logger.info("configuration successfully reloaded")


async def _load(proxies: ProxyRegistry) -> Configuration:
    options = get_options()
    configuration = await sync_to_async(load_configuration)(options)
    section = options.channel.proxy
    defaults = {event: getattr(section, event) for event in EVENTS}
    proxies.take(defaults, configuration.proxies)
    return configuration


@functools.cache
def _handler_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(HANDLER_THREADS, "tidewire-handler")


async def _run_in_thread(handler: Handler, request: Any) -> Any:
    """Run a handler with database connections that are fresh, and are given back afterwards."""
    run = database_sync_to_async(handler, thread_sensitive=False, executor=_handler_threads())
    return await run(request)


async def _poll(node: Node) -> None:
    """Notice changes that no signal of this process announces."""
    refused = -1
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        try:
            revision = await sync_to_async(read_revision)()
            if revision not in (node.configuration.revision, refused):
                await node.reload()
                # Rows that do not validate are reported once, not every second.
                refused = -1 if node.configuration.revision == revision else revision
        except Exception:  # the database may be away; what is loaded stays in force
            logger.warning("the configuration's revision was not read", exc_info=True)


def _on_change(sender: object, **facts: Any) -> None:
    """Tell the nodes; called after commit, in whichever thread saved."""
    node = _node
    if node is None or node.loop is None:
        return
    revision = int(facts.get("revision") or 0)
    asyncio.run_coroutine_threadsafe(node.control(ReloadConfiguration(revision)), node.loop)
