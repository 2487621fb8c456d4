"""Permissions: every decision, and the trace that explains it."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from realtime.namespaces.options import ChannelOptions, ChannelRules, MapOptions
from realtime.namespaces.table import NamespaceTable
from realtime.protocol.errors import BAD_REQUEST, BadRequestError, ClientError, Disconnect
from realtime.session.grants import GrantedOptions, MapPresence, Override, grant_options
from realtime.session.manner import Batching, Manner
from realtime.session.map_writes import authorize_map_write, map_key
from realtime.session.payloads import check_data_format
from realtime.session.permissions import (
    SubscriptionSource,
    authorize_history,
    authorize_presence,
    authorize_publish,
    authorize_subscribe,
    check_channel,
    check_subscribe,
    may_connect_sub,
)
from realtime.session.rules import Step


# The namespaces of the examples that were verified against the reference, and some more.
TABLE = NamespaceTable(
    namespaces={
        "pub": ChannelOptions(allow_subscribe_for_client=True),
        "anon": ChannelOptions(
            allow_subscribe_for_client=True,
            allow_subscribe_for_anonymous=True,
            allow_history_for_client=True,
            allow_history_for_anonymous=True,
        ),
        "reg": ChannelOptions(allow_subscribe_for_client=True, channel_regex="^[a-z\u00e9]+$"),
        "lim": ChannelOptions(allow_subscribe_for_client=True, allow_user_limited_channels=True),
        "lim2": ChannelOptions(allow_subscribe_for_client=True),
        "tok": ChannelOptions(),
        "full": ChannelOptions(
            allow_subscribe_for_client=True,
            history_size=10,
            history_ttl=60,
            force_recovery=True,
            presence=True,
            allow_publish_for_subscriber=True,
            allow_history_for_subscriber=True,
            allow_presence_for_subscriber=True,
        ),
        "proxied": ChannelOptions(
            allow_subscribe_for_client=True,
            allow_user_limited_channels=True,
            subscribe_proxy_enabled=True,
            publish_proxy_enabled=True,
            allow_publish_for_client=True,
        ),
        "streamed": ChannelOptions(
            allow_subscribe_for_client=True,
            allow_user_limited_channels=True,
            subscribe_stream_proxy_enabled=True,
            allow_publish_for_client=True,
        ),
        "map": ChannelOptions(subscription_type="map", allow_subscribe_for_client=True),
        "poll": ChannelOptions(subscription_type="shared_poll", allow_subscribe_for_client=True),
    }
)
OK = "ok"
DISCONNECT = 3501


def outcome(function, *args, **kwargs):
    """Return "ok", the error's code or the disconnect's."""
    try:
        function(*args, **kwargs)
    except (ClientError, Disconnect) as error:
        return error.code
    return OK


def subscribe(channel, user="u", *, is_insecure=False, trace=None, **request):
    """Run a subscribe without a token's verification; return its source."""
    found = check_subscribe(TABLE, channel, trace=trace, **request)
    return authorize_subscribe(found, user=user, is_insecure=is_insecure, trace=trace)


def publish(
    channel,
    user="u",
    *,
    is_subscribed=False,
    data=b"{}",
    is_insecure=False,
    trace=None,
    table=TABLE,
):
    """Run a publish."""
    found = check_channel(table, channel, trace)
    authorize_publish(
        found,
        data=data,
        user=user,
        is_subscribed=is_subscribed,
        is_insecure=is_insecure,
        trace=trace,
    )


def history(channel, user="u", *, is_subscribed=False, is_insecure=False, trace=None, table=TABLE):
    """Run a history call."""
    found = check_channel(table, channel, trace)
    authorize_history(
        found, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure, trace=trace
    )


def presence(channel, user="u", *, is_subscribed=False, is_insecure=False, trace=None, table=TABLE):
    """Run a presence call."""
    found = check_channel(table, channel, trace)
    authorize_presence(
        found, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure, trace=trace
    )


# --- subscribe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "user", "expected"),
    [
        ("pub:x", "u", OK),
        ("nons:x", "u", 102),
        ("$pub:x", "u", 103),
        ("$x", "u", 103),
        ("pub:" + "x" * 251, "u", OK),
        ("pub:" + "x" * 252, "u", 107),
        ("pub:\u00e9", "u", 107),
        ("reg:\u00e9", "u", OK),
        ("reg:ABC", "u", 107),
        ("lim:#u", "u", OK),
        ("lim:a#x,u", "u", OK),
        ("lim:a#x", "u", 103),
        ("lim:a#u#x", "u", 103),
        ("lim:a#x#u", "u", OK),
        ("lim:a", "u", OK),
        ("lim2:a#x", "u", OK),
        ("pub:q", "", 103),
        ("anon:q", "", OK),
        ("lim:#", "", 103),  # the reference lets it in
        ("lim:#u,", "", 103),
        ("tok:a", "u", 103),
        ("", "u", DISCONNECT),
        (":a", "u", 103),
        ("reg:a\ud800", "u", 107),
        ("nons:" + "x" * 300, "u", 107),  # the length comes first
    ],
)
def test_subscribe_examples(channel, user, expected):
    """Those of the reference, but for the anonymous user of a user-limited channel."""
    assert outcome(subscribe, channel, user) == expected


@pytest.mark.parametrize(
    ("channel", "request_", "expected"),
    [
        ("pub:x", {"delta": "fossil"}, OK),
        ("pub:x", {"delta": "xdelta"}, DISCONNECT),
        ("pub:" + "x" * 300, {"delta": "xdelta"}, DISCONNECT),
        ("pub:x", {"is_subscribed": True, "is_limit_reached": True}, 105),
        ("pub:x", {"is_limit_reached": True}, 106),
        ("nons:x", {"is_subscribed": True}, 105),
        ("pub:\u00e9", {"is_limit_reached": True}, 106),
        ("pub:" + "x" * 300, {"is_subscribed": True}, 107),
        ("pub:x", {"requested_type": 1}, 103),
        ("pub:x", {"requested_type": 3}, 103),
        ("pub:x", {"requested_type": 4}, 108),
        ("pub:x", {"requested_type": 5}, 107),
        ("pub:x", {"requested_type": -1}, 107),
        ("nons:x", {"requested_type": 4}, 102),
        ("map:x", {}, 103),
        ("map:x", {"requested_type": 1}, OK),
        ("map:x", {"requested_type": 2}, 103),
        ("poll:x", {}, 107),
        ("poll:x", {"requested_type": 1}, 107),
        ("poll:x", {"requested_type": 4}, OK),
        ("poll:" + "x" * 300, {"requested_type": 4}, 107),
        ("$map:x", {"requested_type": 2}, 103),
        ("$pub:x", {"has_token": True}, OK),
        ("$pub:\u00e9", {"has_token": True}, 107),
    ],
)
def test_subscribe_checks_in_order(channel, request_, expected):
    """The order is observable: the first rule that refuses decides."""
    assert outcome(check_subscribe, TABLE, channel, **request_) == expected


def test_disconnects_carry_the_protocols_reason():
    """SDKs decide by it."""
    with pytest.raises(Disconnect) as caught:
        check_subscribe(TABLE, "")

    assert (caught.value.code, caught.value.reason) == BAD_REQUEST


@pytest.mark.parametrize(
    ("channel", "user", "is_insecure", "expected"),
    [
        ("pub:x", "u", False, SubscriptionSource.CLIENT_ALLOWED),
        ("pub:x", "u", True, SubscriptionSource.CLIENT_ALLOWED),
        ("pub:x", "", True, SubscriptionSource.INSECURE),
        ("tok:x", "u", True, SubscriptionSource.INSECURE),
        ("lim:#u", "u", True, SubscriptionSource.USER_LIMITED),
        ("lim:#x", "u", True, SubscriptionSource.INSECURE),
        ("lim:#", "", True, SubscriptionSource.INSECURE),
        ("proxied:#u", "u", False, SubscriptionSource.USER_LIMITED),
        ("streamed:#u", "u", False, SubscriptionSource.USER_LIMITED),
        ("proxied:#x", "u", True, SubscriptionSource.INSECURE),
    ],
)
def test_subscribe_has_a_source(channel, user, is_insecure, expected):
    """The first rule that grants is remembered."""
    assert subscribe(channel, user, is_insecure=is_insecure) is expected


@pytest.mark.parametrize(
    ("channel", "is_insecure", "expected"),
    [
        ("proxied:x", False, 108),
        ("proxied:x", True, 108),  # the proxy's answer would be final
        ("streamed:x", True, 108),
        ("proxied:#x", False, 103),  # user-limited: no proxy is asked
        ("streamed:#x", False, 103),
        ("$tok:x", True, 103),  # private: client.insecure does not help
    ],
)
def test_what_only_a_proxy_or_a_token_could_grant(channel, is_insecure, expected):
    """Nothing else is tried."""
    assert outcome(subscribe, channel, is_insecure=is_insecure) == expected


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "UNKNOWN"),
        (1, "CONNECTION_TOKEN"),
        (2, "CONNECT_PROXY"),
        (3, "SUBSCRIPTION_TOKEN"),
        (4, "SUBSCRIBE_PROXY"),
        (5, "USER_LIMITED"),
        (6, "CLIENT_ALLOWED"),
        (7, "INSECURE"),
        (8, "CONNECT_REQUEST"),
        (9, "USER_PERSONAL"),
        (10, "SERVER_API"),
        (13, "STREAM_PROXY"),
    ],
)
def test_sources_are_numbered_as_in_the_reference(number, name):
    """The numbers leave the process in analytics."""
    assert SubscriptionSource(number).name == name


@pytest.mark.parametrize(
    ("channel", "user", "is_insecure", "expected"),
    [
        ("pub:x", "u", False, True),
        ("pub:x", "", False, False),
        ("anon:x", "", False, True),
        ("tok:x", "u", False, False),
        ("tok:x", "", True, True),
        ("$pub:x", "u", True, False),
        ("pub:\u00e9", "u", True, False),
        ("lim:#u", "u", False, True),
        ("lim:#x", "u", False, False),
        ("lim:#", "", False, False),
        ("lim:#x", "u", True, True),
        ("proxied:x", "u", True, False),
        ("proxied:#u", "u", False, False),
        ("streamed:#u", "u", True, False),
        ("map:x", "u", True, False),
        ("poll:x", "u", True, False),
    ],
)
def test_connect_subs(channel, user, is_insecure, expected):
    """What isn't granted is left out; nothing raises."""
    trace: list[Step] = []

    assert may_connect_sub(TABLE.resolve(channel), user, is_insecure, trace) is expected
    assert may_connect_sub(TABLE.resolve(channel), user, is_insecure) is expected
    assert trace[-1].outcome == ("grant" if expected else "refuse")


# --- publish, history, presence -----------------------------------------------------------------


@pytest.mark.parametrize("operation", ["publish", "history", "presence"])
@pytest.mark.parametrize(
    ("for_client", "for_subscriber", "for_anonymous", "expected"),
    [
        # user not subscribed, user subscribed, anonymous not subscribed, anonymous subscribed
        (0, 0, 0, (103, 103, 103, 103)),
        (0, 0, 1, (103, 103, 103, 103)),
        (1, 0, 0, (OK, OK, 103, 103)),
        (1, 1, 0, (OK, OK, 103, 103)),
        (1, 0, 1, (OK, OK, OK, OK)),
        (1, 1, 1, (OK, OK, OK, OK)),
        (0, 1, 0, (103, OK, 103, 103)),
        (0, 1, 1, (103, OK, 103, OK)),
    ],
)
def test_truth_table(operation, for_client, for_subscriber, for_anonymous, expected):
    """The anonymous flag grants nothing by itself; client.insecure grants all, where the feature is on."""
    flags = {
        f"allow_{operation}_for_client": bool(for_client),
        f"allow_{operation}_for_subscriber": bool(for_subscriber),
        f"allow_{operation}_for_anonymous": bool(for_anonymous),
    }
    features = {"history_size": 1, "history_ttl": 1, "presence": True}
    table = NamespaceTable(ChannelOptions(**flags, **features))
    off = NamespaceTable(ChannelOptions(**flags))
    call = {"publish": publish, "history": history, "presence": presence}[operation]
    cases = list(itertools.product(("u", ""), (False, True)))

    results = [outcome(call, "a", user, is_subscribed=is_in, table=table) for user, is_in in cases]
    insecure = [
        outcome(call, "a", user, is_subscribed=is_in, is_insecure=True, table=table)
        for user, is_in in cases
    ]
    without = [outcome(call, "a", user, is_subscribed=is_in, table=off) for user, is_in in cases]

    assert results == list(expected)
    assert insecure == [OK] * 4
    assert without == (list(expected) if operation == "publish" else [108] * 4)


@pytest.mark.parametrize("call", [publish, history, presence])
@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("", DISCONNECT),
        ("nons:x", 102),
        ("full:\u00e9", 107),
        ("reg:ABC", 107),
        ("full:x", OK),
        ("$full:x", OK),
        ("full:" + "x" * 300, OK),
    ],
)
def test_names_outside_of_subscribe(call, channel, expected):
    """Neither length nor the private prefix plays a role here."""
    assert outcome(call, channel, is_subscribed=True) == expected


@pytest.mark.parametrize(
    ("call", "channel", "is_subscribed", "expected"),
    [
        (publish, "full:q", False, 103),
        (publish, "full:q", True, OK),
        (history, "anon:q", False, 108),
        (history, "full:q", False, 103),
        (history, "full:q", True, OK),
        (presence, "anon:q", True, 108),
        (presence, "full:q", True, OK),
        (publish, "proxied:q", True, 108),
        (publish, "streamed:q", True, 108),
        (publish, "proxied:#u", True, 108),
    ],
)
def test_publish_history_and_presence_examples(call, channel, is_subscribed, expected):
    """Those of the reference; a proxy that cannot be asked is 108."""
    assert outcome(call, channel, is_subscribed=is_subscribed) == expected


def test_the_payload_is_judged_before_permissions():
    """Also before a proxy would be asked."""
    assert outcome(publish, "tok:x", data=b"") == 107
    assert outcome(publish, "proxied:x", data=b"") == 107
    assert outcome(publish, "full:\u00e9", data=b"") == 107


def test_the_payloads_format_is_inherited():
    """From the rules, where the namespace has none."""
    table = NamespaceTable(
        ChannelOptions(allow_publish_for_client=True),
        rules=ChannelRules(publication_data_format="json_object"),
    )

    assert outcome(publish, "a", data=b"[]", table=table) == 107
    assert outcome(publish, "a", data=b"{}", table=table) == OK


@pytest.mark.parametrize(
    ("data", "accepted_by"),
    [
        (b"", {"binary"}),
        (b"{}", {"", "json", "json_object", "binary"}),
        (b' \t\r\n{"a": [1]} ', {"", "json", "json_object", "binary"}),
        (b"[]", {"", "json", "binary"}),
        (b"null", {"", "json", "binary"}),
        (b'"{"', {"", "json", "binary"}),
        (b"-0.5e+3", {"", "json", "binary"}),
        (b'{"\\ud800": "\\uDC00"}', {"", "json", "json_object", "binary"}),  # half a pair
        (b'["\\\\ud800"]', {"", "json", "binary"}),
        (b'{"a":1}{', {"", "binary"}),
        (b"{", {"", "binary"}),
        (b'{"a":1,}', {"", "binary"}),
        (b"NaN", {"", "binary"}),
        (b"01", {"", "binary"}),
        (b'"\\ud8zz"', {"", "binary"}),
        (b'"\\ud800', {"", "binary"}),
        (b"\xef\xbb\xbf{}", {"", "binary"}),
        (b"   ", {"", "binary"}),
        (b"\x00\xff", {"", "binary"}),
        (b"[" * 100_000 + b"]" * 100_000, {"", "binary"}),
        (b"[" * 100_000 + b'"\\ud800"', {"", "binary"}),
    ],
)
@pytest.mark.parametrize("data_format", ["", "json", "json_object", "binary"])
def test_data_formats(data_format, data, accepted_by):
    """Only syntax counts; nothing a client sends makes it raise anything else."""
    expected = OK if data_format in accepted_by else 107

    assert outcome(check_data_format, data_format, data) == expected
    assert outcome(check_data_format, data_format, Raw(data)) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=25)
@given(value=json_values, is_ascii=st.booleans(), rest=st.binary(max_size=3))
def test_any_json_is_json(value, is_ascii, rest):
    """
    What Python writes is accepted, and an object is one by its first character.
    """
    text = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")

    assert outcome(check_data_format, "json", text) == OK
    assert outcome(check_data_format, "json_object", text) == (
        OK if isinstance(value, dict) else 107
    )
    assert outcome(check_data_format, "json", rest) in (OK, 107)


# --- granted options ----------------------------------------------------------------------------


def grant(options: ChannelOptions, *, user: str = "u", **request) -> GrantedOptions:
    """Grant a subscription to a channel with these options."""
    return grant_options(NamespaceTable(options).resolve("a"), user=user, **request)


NOTHING = GrantedOptions(
    positioned=False,
    recoverable=False,
    is_cache=False,
    auto_recover=False,
    presence=False,
    emit_join_leave=False,
    push_join_leave=False,
    delta="",
    history_meta_ttl=2592000.0,
)
EVERYTHING = {"positioned": True, "recoverable": True, "join_leave": True, "delta": "fossil"}


def test_what_is_not_permitted_is_left_out():
    """Asking for it is no error."""
    assert grant(ChannelOptions(), **EVERYTHING) == NOTHING
    assert grant(ChannelOptions(join_leave=True), **EVERYTHING).push_join_leave is False


@pytest.mark.parametrize(
    ("flags", "user", "expected"),
    [
        ({"allow_positioning": True}, "", (True, False)),
        ({"allow_recovery": True}, "", (True, True)),
        ({"allow_history_for_client": True}, "u", (True, True)),
        ({"allow_history_for_subscriber": True}, "u", (True, True)),
        ({"allow_history_for_client": True}, "", (False, False)),
        (
            {"allow_history_for_subscriber": True, "allow_history_for_anonymous": True},
            "",
            (True, True),
        ),
        ({"allow_history_for_anonymous": True}, "", (False, False)),
    ],
)
def test_who_may_ask_for_positions(flags, user, expected):
    """The flags of its own, or access to history as a subscriber; only for who asks."""
    granted = grant(ChannelOptions(**flags), user=user, positioned=True, recoverable=True)
    not_asked = grant(ChannelOptions(**flags), user=user)

    assert (granted.positioned, granted.recoverable) == expected
    assert not_asked == NOTHING


def test_recovery_implies_positioning():
    """Forced or asked for."""
    forced = grant(ChannelOptions(force_recovery=True))
    asked = grant(ChannelOptions(allow_recovery=True), recoverable=True)

    assert forced.positioned
    assert forced.recoverable
    assert asked.positioned
    assert asked.recoverable


@pytest.mark.parametrize(
    ("flags", "user", "expected"),
    [
        ({"join_leave": True, "allow_presence_for_client": True}, "u", True),
        ({"join_leave": True, "allow_presence_for_subscriber": True}, "u", True),
        ({"join_leave": True, "allow_presence_for_subscriber": True}, "", False),
        ({"allow_presence_for_client": True}, "u", False),
        ({"join_leave": True}, "u", False),
        ({"join_leave": True, "force_push_join_leave": True}, "", True),
    ],
)
def test_who_gets_joins_and_leaves(flags, user, expected):
    """Who may see presence and asks, or everybody where it is forced."""
    options = ChannelOptions(**flags)

    assert grant(options, user=user, join_leave=True).push_join_leave is expected
    assert grant(options, user=user).push_join_leave is options.force_push_join_leave
    assert grant(options, user=user).emit_join_leave is options.join_leave


def test_insecure_may_ask_for_everything():
    """It has access to history and presence."""
    granted = grant(ChannelOptions(join_leave=True), user="", is_insecure=True, **EVERYTHING)

    assert (granted.positioned, granted.recoverable, granted.push_join_leave) == (True, True, True)


@pytest.mark.parametrize(
    ("mode", "auto", "is_recoverable", "is_cache", "auto_recover"),
    [
        ("", True, True, False, False),
        ("stream", True, True, False, False),
        ("cache", True, True, True, True),
        ("cache", True, False, True, False),
        ("cache", False, True, True, False),
    ],
)
def test_recovery_mode(mode, auto, is_recoverable, is_cache, auto_recover):
    """The server recovers by itself only in cache mode, with recovery on."""
    options = ChannelOptions(
        force_recovery_mode=mode, auto_cache_recover=auto, force_recovery=is_recoverable
    )

    granted = grant(options)

    assert (granted.is_cache, granted.auto_recover) == (is_cache, auto_recover)


@pytest.mark.parametrize(("asked", "expected"), [("fossil", "fossil"), ("", ""), ("other", "")])
def test_delta_is_negotiated(asked, expected):
    """With what the namespace allows; also on server-side subscriptions."""
    options = ChannelOptions(allowed_delta_types=("fossil",))

    assert grant(options, delta=asked).delta == expected
    assert grant(options, delta=asked, is_server_side=True).delta == expected


def test_an_override_replaces_the_namespaces_values():
    """Both ways, value by value; the request may still add."""
    on = Override(
        presence=True,
        join_leave=True,
        force_push_join_leave=True,
        force_recovery=True,
        force_positioning=True,
    )
    off = Override(
        presence=False,
        join_leave=False,
        force_push_join_leave=False,
        force_recovery=False,
        force_positioning=False,
    )
    all_on = ChannelOptions(
        presence=True,
        join_leave=True,
        force_push_join_leave=True,
        force_recovery=True,
        force_positioning=True,
    )

    granted = grant(ChannelOptions(), override=on)

    assert granted == grant(all_on)
    assert all(
        (granted.presence, granted.emit_join_leave, granted.push_join_leave, granted.recoverable)
    )
    assert grant(all_on, override=off) == NOTHING
    assert grant(all_on, override=Override()) == grant(all_on)
    assert grant(all_on, override=Override(presence=False)).presence is False
    asked = grant(ChannelOptions(allow_recovery=True), override=off, recoverable=True)
    assert asked.recoverable


def test_join_leave_by_override_lets_a_subscriber_ask():
    """The override is the base that the request adds to."""
    options = ChannelOptions(allow_presence_for_client=True)

    assert grant(options, override=Override(join_leave=True), join_leave=True).push_join_leave
    assert not grant(options, join_leave=True).push_join_leave


def test_a_server_side_subscription_asks_for_nothing():
    """Only what is forced counts."""
    options = ChannelOptions(
        allow_positioning=True,
        allow_recovery=True,
        join_leave=True,
        allow_presence_for_client=True,
        presence=True,
    )

    granted = grant(
        options, is_server_side=True, positioned=True, recoverable=True, join_leave=True
    )

    assert (granted.positioned, granted.recoverable, granted.push_join_leave) == (
        False,
        False,
        False,
    )
    assert granted.presence
    assert granted.emit_join_leave
    assert grant(options, is_server_side=True, override=Override(force_recovery=True)).recoverable


@pytest.mark.parametrize("kind", ["map", "map_clients", "map_users", "shared_poll"])
def test_history_options_have_no_effect_on_other_types(kind):
    """Their positions are a matter of their own; presence and joins work."""
    options = ChannelOptions(
        subscription_type=kind,
        map=MapOptions(mode="ephemeral", key_ttl=60),
        force_recovery=True,
        force_positioning=True,
        presence=True,
        join_leave=True,
    )

    granted = grant(options, positioned=True, recoverable=True)

    assert (granted.positioned, granted.recoverable, granted.auto_recover) == (False, False, False)
    assert (granted.presence, granted.emit_join_leave) == (True, True)


@pytest.mark.parametrize("kind", ["map", "map_clients", "map_users"])
@pytest.mark.parametrize(
    ("mode", "has_stream"), [("ephemeral", False), ("recoverable", True), ("persistent", True)]
)
def test_a_maps_mode_decides_on_positions(kind, mode, has_stream):
    """Whatever is asked for; one that the server makes doesn't load the map, and has none."""
    options = ChannelOptions(
        subscription_type=kind,
        map=MapOptions(mode=mode, key_ttl=60),
        force_recovery_mode="cache",
    )

    granted = grant(options)

    assert (granted.positioned, granted.recoverable) == (has_stream, has_stream)
    assert not granted.is_cache
    assert not grant(options, is_server_side=True).positioned


def test_what_is_put_down_in_maps_goes_with_the_subscription():
    """By whatever right it exists; most have nothing of it."""
    prefixes = {
        "map_clients_presence_channel_prefix": "clients:",
        "map_users_presence_channel_prefix": "users:",
    }
    own = MapOptions(mode="persistent", remove_client_on_unsubscribe=True)

    assert grant(ChannelOptions()).map_presence is None
    assert grant(ChannelOptions(map=own)).map_presence is None
    for more in ({}, {"override": Override(presence=True)}, {"is_server_side": True}):
        granted = grant(ChannelOptions(**prefixes), **more).map_presence
        assert granted == MapPresence("clients:", "users:", removes_own_key=False)
        granted = grant(ChannelOptions(subscription_type="map", map=own), **more).map_presence
        assert granted == MapPresence("", "", removes_own_key=True)


def map_channel(**options):
    made = ChannelOptions(
        subscription_type="map",
        map=MapOptions(mode="persistent", **options.pop("map", {})),
        **options,
    )
    return NamespaceTable(namespaces={"map": made}).resolve("map:a")


def test_a_write_to_a_map_is_explained():
    """The proxy, the flags and the key, in the order in which they are tried."""
    trace = []
    channel = map_channel(
        map={"allow_publish_for_subscriber": True, "client_key": "user_id"},
        publication_data_format="json",
    )

    authorize_map_write(
        channel, data=b"1", user="u", is_removal=False, is_subscribed=True, trace=trace
    )
    key = map_key(channel, asked="other", client_id="c", user="u", trace=trace)

    assert key == "u"
    assert [(step.rule, step.outcome) for step in trace] == [
        ("type", "pass"),
        ("data_format", "pass"),
        ("map.publish_proxy", "pass"),
        ("map.allow_publish_for_client", "pass"),
        ("map.allow_publish_for_subscriber", "grant"),
        ("map.client_key", "grant"),
    ]


@pytest.mark.parametrize(
    ("options", "is_removal", "rule"),
    [
        ({}, False, "denied"),
        ({"map": {"publish_proxy_enabled": True}}, False, "map.publish_proxy"),
        ({"map": {"remove_proxy_enabled": True}}, True, "map.remove_proxy"),
        ({"publication_data_format": "json"}, False, "data_format"),
        ({"publication_data_format": "json"}, True, "denied"),
    ],
)
def test_a_refused_write_says_by_which_rule(options, is_removal, rule):
    """The last step is the one that refuses."""
    trace = []

    with pytest.raises(ClientError):
        authorize_map_write(
            map_channel(**options),
            data=b"",
            user="u",
            is_removal=is_removal,
            is_subscribed=True,
            trace=trace,
        )

    assert (trace[-1].rule, trace[-1].outcome) == (rule, "refuse")


def test_a_publish_without_a_key_is_no_way_into_a_map():
    """Whatever the flags of streams say."""
    trace = []
    channel = map_channel(allow_publish_for_client=True)

    for steps in (None, trace):
        with pytest.raises(BadRequestError):
            authorize_publish(channel, data=b"1", user="u", is_subscribed=True, trace=steps)

    assert trace[-1] == Step("type", "refuse", trace[-1].text)


def test_the_meta_ttl_goes_with_the_subscription():
    """The namespace's, or the one of all channels."""
    assert grant(ChannelOptions(history_meta_ttl=120.0)).history_meta_ttl == 120.0


# --- traces -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "user", "is_insecure", "expected"),
    [
        (
            "pub:x",
            "u",
            False,
            "channel delta length duplicate channel_limit namespace name type private user_limited "
            "subscribe_proxy subscribe_stream_proxy allow_subscribe_for_client=grant",
        ),
        ("", "u", False, "channel=refuse"),
        ("nons:x", "u", False, "channel delta length duplicate channel_limit namespace=refuse"),
        (
            "pub:\u00e9",
            "u",
            False,
            "channel delta length duplicate channel_limit namespace name=refuse",
        ),
        (
            "$pub:x",
            "u",
            True,
            "channel delta length duplicate channel_limit namespace name type private=refuse",
        ),
        (
            "lim:#x",
            "u",
            False,
            "channel delta length duplicate channel_limit namespace name type private user_limited "
            "client.insecure denied=refuse",
        ),
        (
            "lim:#u",
            "u",
            False,
            "channel delta length duplicate channel_limit namespace name type private user_limited=grant",
        ),
        (
            "proxied:x",
            "u",
            False,
            "channel delta length duplicate channel_limit namespace name type private user_limited "
            "subscribe_proxy=refuse",
        ),
        (
            "tok:x",
            "u",
            True,
            "channel delta length duplicate channel_limit namespace name type private user_limited "
            "subscribe_proxy subscribe_stream_proxy allow_subscribe_for_client client.insecure=grant",
        ),
    ],
)
def test_a_subscribes_trace_lists_the_rules_in_order(channel, user, is_insecure, expected):
    """All but the last let the request pass; the last decides."""
    trace: list[Step] = []

    outcome(subscribe, channel, user, is_insecure=is_insecure, trace=trace)

    listed = [
        step.rule if step.outcome == "pass" else f"{step.rule}={step.outcome}" for step in trace
    ]
    assert " ".join(listed) == expected
    assert all(step.text for step in trace)


@pytest.mark.parametrize(
    ("call", "channel", "is_subscribed", "expected"),
    [
        (
            publish,
            "full:x",
            True,
            "channel namespace name data_format publish_proxy subscribe_stream_proxy "
            "allow_publish_for_client allow_publish_for_subscriber=grant",
        ),
        (
            publish,
            "full:x",
            False,
            "channel namespace name data_format publish_proxy subscribe_stream_proxy "
            "allow_publish_for_client allow_publish_for_subscriber client.insecure denied=refuse",
        ),
        (publish, "proxied:x", True, "channel namespace name data_format publish_proxy=refuse"),
        (
            history,
            "full:x",
            True,
            "channel namespace name history allow_history_for_client allow_history_for_subscriber=grant",
        ),
        (history, "anon:x", True, "channel namespace name history=refuse"),
        (presence, "pub:x", True, "channel namespace name presence=refuse"),
        (
            presence,
            "full:x",
            True,
            "channel namespace name presence allow_presence_for_client allow_presence_for_subscriber=grant",
        ),
    ],
)
def test_other_traces_list_the_rules_in_order(call, channel, is_subscribed, expected):
    """All but the last let the request pass; the last decides."""
    trace: list[Step] = []

    outcome(call, channel, is_subscribed=is_subscribed, trace=trace)

    listed = [
        step.rule if step.outcome == "pass" else f"{step.rule}={step.outcome}" for step in trace
    ]
    assert " ".join(listed) == expected


def test_a_trace_says_what_is_in_the_way():
    """An operator reads it."""
    trace: list[Step] = []

    outcome(publish, "full:x", is_subscribed=False, trace=trace)
    outcome(subscribe, "proxied:x", trace=trace)
    outcome(subscribe, "nons:x", trace=trace)
    outcome(subscribe, "pub:x", "", trace=trace)

    texts = {step.rule: step.text for step in trace}
    assert texts["allow_publish_for_subscriber"] == "on, but the client is not subscribed"
    assert "proxies come with a later version" in next(
        step.text for step in trace if step.rule == "subscribe_proxy" and step.outcome == "refuse"
    )
    assert "full" in next(
        step.text for step in trace if step.rule == "namespace" and step.outcome == "refuse"
    )
    assert texts["allow_subscribe_for_client"] == "on, but not for anonymous clients"


def test_granted_options_are_explained():
    """What is forced or was asked for, and why it is there or not."""
    trace: list[Step] = []

    grant(
        ChannelOptions(force_recovery=True),
        positioned=True,
        join_leave=True,
        delta="fossil",
        trace=trace,
    )

    assert trace == [
        Step("recovery", "grant", "forced"),
        Step("positioning", "grant", "forced"),
        Step("join_leave_push", "pass", "asked for, but not permitted"),
        Step("delta", "pass", "asked for, but not permitted"),
    ]


@given(
    channel=st.sampled_from(["", "a", "$a", "a#", "#u", "\u00e9", "x:y", "a\ud800", "a" * 300]),
    options=st.builds(
        ChannelOptions,
        allow_subscribe_for_client=st.booleans(),
        allow_subscribe_for_anonymous=st.booleans(),
        allow_user_limited_channels=st.booleans(),
        allow_publish_for_client=st.booleans(),
        allow_publish_for_subscriber=st.booleans(),
        allow_publish_for_anonymous=st.booleans(),
        subscribe_proxy_enabled=st.booleans(),
        publish_proxy_enabled=st.booleans(),
        subscription_type=st.sampled_from(["", "map", "shared_poll"]),
        presence=st.booleans(),
        allow_presence_for_client=st.booleans(),
    ),
    user=st.sampled_from(["", "u"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    requested_type=st.integers(-1, 5),
    data=st.sampled_from([b"", b"{}"]),
)
def test_a_trace_changes_nothing_and_ends_with_the_decision(
    channel, options, user, flags, requested_type, data
):
    """
    With or without it the outcome is the same, and only its last step decides.
    """
    is_insecure, is_subscribed, has_token = flags
    table = NamespaceTable(options)

    def do_subscribe(trace):
        found = check_subscribe(
            table, channel, requested_type=requested_type, has_token=has_token, trace=trace
        )
        authorize_subscribe(found, user=user, is_insecure=is_insecure, trace=trace)

    def do_publish(trace):
        found = check_channel(table, channel, trace)
        authorize_publish(
            found,
            data=data,
            user=user,
            is_subscribed=is_subscribed,
            is_insecure=is_insecure,
            trace=trace,
        )

    def do_presence(trace):
        found = check_channel(table, channel, trace)
        authorize_presence(
            found, user=user, is_subscribed=is_subscribed, is_insecure=is_insecure, trace=trace
        )

    for do in (do_subscribe, do_publish, do_presence):
        trace: list[Step] = []
        result = outcome(do, trace)

        assert result == outcome(do, None)
        assert trace[-1].outcome == ("grant" if result == OK else "refuse")
        assert {step.outcome for step in trace[:-1]} <= {"pass"}


# --- how pushes are written ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "request_", "manner"),
    [
        ({}, {"compact": True, "join_leave": True}, None),
        ({"batch_max_size": 2}, {}, Manner(batching=Batching(2, 0.0, False))),
        (
            {"batch_max_delay": 0.5, "batch_flush_latest": True, "force_push_join_leave": True},
            {},
            Manner(has_joins=True, batching=Batching(0, 0.5, True)),
        ),
        ({"allow_channel_compaction": True}, {}, None),
        ({"allow_channel_compaction": True}, {"compact": True}, Manner(has_number=True)),
        # An SDK can't find what it did not ask for by its number.
        ({"allow_channel_compaction": True}, {"compact": True, "is_server_side": True}, None),
        ({"force_push_join_leave": True}, {}, None),
    ],
)
def test_the_manner_is_the_namespaces_and_numbers_are_asked_for(options, request_, manner):
    """``None`` is the usual one, so that plain channels stay as cheap as they are."""
    assert grant(ChannelOptions(**options), **request_).manner == manner


def test_the_latest_publication_is_a_base_for_those_without_positions():
    """Where deltas were negotiated; with positions the stream has the base."""
    options = ChannelOptions(
        allowed_delta_types=("fossil",), keep_latest_publication=True, allow_positioning=True
    )

    assert grant(options, delta="fossil").keep_latest
    assert not grant(options, delta="fossil", positioned=True).keep_latest
    assert not grant(options).keep_latest


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0, 0), (0.25, 250), (0.0015, 2), (10**9, 2**31 - 1)]
)
def test_the_debounce_is_told_in_milliseconds(seconds, milliseconds):
    """As JavaScript's timers can take them."""
    options = ChannelOptions(client_publish_debounce_interval=seconds)

    assert grant(options).publish_debounce == milliseconds
