"""
May this client write this key of this map?

Source: the map publish and remove algorithms of Centrifugo v6. Stricter on purpose: a namespace's data format holds for
maps too.
"""

from __future__ import annotations

from msgspec import Raw

from realtime.namespaces.options import MapOptions
from realtime.namespaces.table import Channel
from realtime.protocol.errors import BadRequestError, NotAvailableError, PermissionDeniedError
from realtime.session.payloads import check_data_format
from realtime.session.rules import PROXIES_COME_LATER, Access, Step, Trace, authorize, refuse


def authorize_map_write(
    channel: Channel,
    *,
    data: bytes | Raw,
    user: str,
    is_removal: bool,
    is_subscribed: bool,
    is_insecure: bool = False,
    trace: Trace = None,
) -> None:
    """
    Decide on a client's write or removal of a map's key; which key, ``map_key`` says.

    Raises:
        BadRequestError: ``data`` is not of the channel's format; this is checked before permissions.
        NotAvailableError: The decision lies with a proxy.
        PermissionDeniedError: The channel is no map, or no rule grants it.

    """
    maps = channel.options.map
    if not channel.options.is_map:
        refuse(trace, "type", PermissionDeniedError(), "the channel is not a map")
    if trace is not None:
        trace.append(Step("type", "pass", "the channel is a map"))
    # Where there is no format a key may stand for itself, without data.
    if not is_removal and channel.data_format:
        check_data_format(channel.data_format, data, trace)
    verb = "remove" if is_removal else "publish"
    proxy = f"map.{verb}_proxy_enabled"
    if maps.remove_proxy_enabled if is_removal else maps.publish_proxy_enabled:
        text = f"{proxy} is on; {PROXIES_COME_LATER}"
        refuse(trace, f"map.{verb}_proxy", NotAvailableError(), text)
    if trace is not None:
        trace.append(Step(f"map.{verb}_proxy", "pass", f"{proxy} is off"))
    access = _map_access(maps, verb, is_removal=is_removal)
    authorize(access, trace, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure)


def _map_access(maps: MapOptions, verb: str, *, is_removal: bool) -> Access:
    flags = (
        (
            maps.allow_remove_for_client,
            maps.allow_remove_for_subscriber,
            maps.allow_remove_for_anonymous,
        )
        if is_removal
        else (
            maps.allow_publish_for_client,
            maps.allow_publish_for_subscriber,
            maps.allow_publish_for_anonymous,
        )
    )
    return Access(f"map.allow_{verb}_for_client", f"map.allow_{verb}_for_subscriber", *flags)


def map_key(channel: Channel, *, asked: str, client_id: str, user: str, trace: Trace = None) -> str:
    """
    Return the key that a client's write is for: its own choice, or the one that the namespace sets.

    Raises:
        PermissionDeniedError: It is to be the user's, and the client is anonymous.
        BadRequestError: It is empty.

    """
    rule = channel.options.map.client_key
    if rule == "user_id" and not user:
        text = "the key is the user's id, and the client is anonymous"
        refuse(trace, "map.client_key", PermissionDeniedError(), text)
    key = {"client_id": client_id, "user_id": user}.get(rule, asked)
    if not key:
        refuse(trace, "map.client_key", BadRequestError(), "the key is empty")
    if trace is not None:
        whose = {"client_id": "the connection's id", "user_id": "the user's id"}
        text = f"the key is {whose.get(rule, 'the one in the request')}"
        trace.append(Step("map.client_key", "grant", text))
    return key
