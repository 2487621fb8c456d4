"""
What is wrong with process options although each value is of its type: a pure function with a table of rules.

Rules about namespaces are in ``realtime.namespaces.validation``; rules that need both (the personal channel's namespace)
are checked when the database's rows are read.

Source: Centrifugo's checks at start and the ranges that the parts here can work with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from realtime.conf import schema
from realtime.conf.durations import format_duration
from realtime.conf.options import DisconnectTransform, ProcessOptions, ProxyOptions, TokenOptions
from realtime.conf.proxy_rules import find_problems as find_problems_of_proxy
from realtime.handlers import EVENTS
from realtime.namespaces.patterns import ChannelPattern, PatternError


CHOICES = {
    "engine.type": ("memory", "redis"),
    "broker.type": ("memory", "redis", "nats", "redisnats", "postgres"),
    "presence_manager.type": ("memory", "redis"),
    "map_broker.type": ("memory", "redis", "postgres"),
    "shared_poll.notification.type": ("redis", "nats"),
    "controller.type": ("", "postgres"),
    "channel.publication_data_format": ("", "json", "json_object", "binary"),
    "http_api.error_mode": ("", "transport"),
    "grpc_api.error_mode": ("", "transport"),
}

# Inclusive; None is open. What is not here must not be negative.
RANGES: dict[str, tuple[int | None, int | None]] = {
    "http_server.port": (0, 65535),
    "workers": (1, None),
    "grpc_api.port": (0, 65535),
    "uni_grpc.port": (0, 65535),
    "graphite.port": (0, 65535),
    "websocket.compression_level": (-1, 9),  # zlib's
    "uni_websocket.compression_level": (-1, 9),
    "client.channel_limit": (1, None),
    "map_broker.redis.cleanup_batch_size": (1, None),
    "client.queue_max_size": (1, None),
    "client.max_messages_in_frame": (-1, None),
    "websocket.message_size_limit": (1, None),
    "webtransport.message_size_limit": (1, None),
}

# A zero here would make a timer spin or a connection end at once.
POSITIVE_DURATIONS = (
    "client.presence_update_interval",
    "client.stale_close_delay",
    "websocket.write_timeout",
)

JWT_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # ES256, ES384, ES512

Found = Iterator[tuple[str, str]]
"""Dotted path and what is wrong with it."""


def find_problems(options: ProcessOptions) -> list[tuple[str, str]]:
    """List all problems as dotted path and sentence."""
    return [
        *_choices(options),
        *_ranges(options),
        *_ping(options),
        *_tokens("client.token", options.client.token),
        *_subscription_tokens(options),
        *_proxies(options),
        *_transforms(options),
        *_http_server(options),
    ]


def _choices(options: ProcessOptions) -> Found:
    for path, allowed in CHOICES.items():
        value = schema.read(options, path)
        if value not in allowed:
            listed = ", ".join(f'"{choice}"' for choice in allowed)
            yield path, f'expected one of {listed}, got "{value}"'


def _ranges(options: ProcessOptions) -> Found:
    for path, leaf in schema.leaves().items():
        if leaf.kind != "int":
            continue
        low, high = RANGES.get(path, (0, None))
        value = schema.read(options, path)
        if low is not None and value < low:
            yield path, f"expected {low} or more, got {value}"
        elif high is not None and value > high:
            yield path, f"expected {high} or less, got {value}"
    for path in POSITIVE_DURATIONS:
        if schema.read(options, path) <= 0:
            yield path, "expected a duration above 0"


def _ping(options: ProcessOptions) -> Found:
    ping, pong = options.client.ping_interval, options.client.pong_timeout
    if pong >= ping:
        yield (
            "client.pong_timeout",
            f"must be less than client.ping_interval ({format_duration(ping)}), "
            f"got {format_duration(pong)}",
        )


def _subscription_tokens(options: ProcessOptions) -> Found:
    if options.client.subscription_token.enabled:
        yield from _tokens("client.subscription_token", options.client.subscription_token)


def _tokens(path: str, token: TokenOptions) -> Found:
    if token.user_id_claim and not re.fullmatch("[a-zA-Z_]+", token.user_id_claim):
        yield f"{path}.user_id_claim", f'must match ^[a-zA-Z_]+$, got "{token.user_id_claim}"'
    if token.audience and token.audience_regex:
        yield f"{path}.audience_regex", "can't be used together with audience"
    if token.issuer and token.issuer_regex:
        yield f"{path}.issuer_regex", "can't be used together with issuer"
    for name in ("audience_regex", "issuer_regex"):
        try:
            ChannelPattern(getattr(token, name))
        except PatternError as error:
            yield f"{path}.{name}", f"is no valid regular expression: {error}"
    for name, kind, title in (
        ("rsa_public_key", rsa.RSAPublicKey, "RSA"),
        ("ecdsa_public_key", ec.EllipticCurvePublicKey, "ECDSA"),
        ("eddsa_public_key", ed25519.Ed25519PublicKey, "Ed25519"),
    ):
        text = getattr(token, name)
        key = _public_key(text) if text else None
        if text and not isinstance(key, kind):
            yield f"{path}.{name}", f"expected the PEM of an {title} public key"
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in JWT_CURVES:
            yield f"{path}.{name}", f"no JWT is signed on the curve {key.curve.name}"


def _public_key(text: str) -> Any:
    data = text.encode()
    try:
        if "CERTIFICATE" in text:
            return x509.load_pem_x509_certificate(data).public_key()
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _proxies(options: ProcessOptions) -> Found:
    for name in ("connect", "refresh"):
        proxy = getattr(options.client.proxy, name)
        if proxy.enabled:
            yield from _proxy(f"client.proxy.{name}", proxy)
    # Without an endpoint there is none, which is wrong only where a namespace relies on it.
    for name in EVENTS:
        proxy = getattr(options.channel.proxy, name)
        if proxy.endpoint:
            for path, text in find_problems_of_proxy(proxy):
                yield f"channel.proxy.{name}.{path}", text


def _proxy(path: str, proxy: ProxyOptions) -> Found:
    if not proxy.endpoint:
        yield f"{path}.endpoint", "is required where the proxy is enabled"
    if proxy.timeout <= 0:
        yield f"{path}.timeout", "expected a duration above 0"


def _transforms(options: ProcessOptions) -> Found:
    base = "client.connect_code_to_unidirectional_disconnect.transforms"
    transforms = options.client.connect_code_to_unidirectional_disconnect.transforms
    for number, transform in enumerate(transforms):
        yield from _disconnect_transform(f"{base}.[{number}]", transform)
    for section in ("uni_sse", "uni_http_stream"):
        responses = getattr(options, section).connect_code_to_http_response.transforms
        path = f"{section}.connect_code_to_http_response.transforms"
        for number, response in enumerate(responses):
            if not response.code:
                yield f"{path}.[{number}].code", "is required"
            if not response.to.status_code:
                yield f"{path}.[{number}].to.status_code", "is required"


def _disconnect_transform(path: str, transform: DisconnectTransform) -> Found:
    if not transform.code:
        yield f"{path}.code", "is required"
    if not transform.to.code:
        yield f"{path}.to.code", "is required"
    if not transform.to.reason:
        yield f"{path}.to.reason", "is required"
    if not transform.to.reason.isascii():
        yield f"{path}.to.reason", "must be ASCII"


def _http_server(options: ProcessOptions) -> Found:
    server = options.http_server
    if server.internal_port and int(server.internal_port) > 65535:
        yield "http_server.internal_port", f"expected 65535 or less, got {server.internal_port}"
    if not server.h2c_external:
        return
    if server.internal_port in ("", str(server.port)):
        yield "http_server.h2c_external", "needs an http_server.internal_port of its own"
    if server.tls.enabled:
        yield "http_server.h2c_external", "can't be used together with http_server.tls"
