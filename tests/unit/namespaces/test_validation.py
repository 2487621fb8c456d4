"""Validation: every rule, at the field that is wrong, and all at once."""

from __future__ import annotations

import math

import msgspec
import pytest

from realtime.namespaces.options import ChannelOptions, ChannelRules, MapOptions, SharedPollOptions
from realtime.namespaces.validation import Candidate, PersonalChannel, Problem, Proxies, validate


ALL_DEFAULTS = (
    "subscribe",
    "publish",
    "sub_refresh",
    "subscribe_stream",
    "map_publish",
    "map_remove",
    "shared_poll_refresh",
)
HISTORY = {"history_size": 10, "history_ttl": 60.0}
LATEST = {"batch_max_delay": 0.1, "batch_flush_latest": True}
MAP = MapOptions(mode="recoverable", key_ttl=60.0)


def check(candidate: Candidate, *, warnings: bool = False) -> list[tuple[str, str]]:
    """Return (namespace, field) of the problems, or of the warnings."""
    return [
        (found.namespace, found.field)
        for found in validate(candidate)
        if found.is_warning is warnings
    ]


def check_one(*, warnings: bool = False, **options) -> list[str]:
    """Return the fields that are wrong in a namespace with these options, where all proxies exist."""
    candidate = Candidate(
        namespaces={"ns": ChannelOptions(**options)},
        proxies=Proxies(("known",), ALL_DEFAULTS),
        has_shared_poll_secret=True,
    )
    found = check(candidate, warnings=warnings)
    assert all(namespace == "ns" for namespace, _ in found)
    return [where for _, where in found]


def replace_map(**values) -> MapOptions:
    """Return a right map with some values changed."""
    return msgspec.structs.replace(MAP, **values)


def test_the_defaults_are_right():
    """No problem and no warning."""
    assert validate(Candidate()) == []
    assert validate(Candidate(namespaces={"ns": ChannelOptions()})) == []


@pytest.mark.parametrize("name", ["", "a", "a b", "a:b", "\u00e9\u00e9", "ab\n"])
def test_row_1_a_name_must_match(name):
    """Two or more of the allowed characters."""
    assert (name, "name") in check(Candidate(namespaces={name: ChannelOptions()}))


def test_row_1_a_name_must_be_unique():
    """One problem per name, not per namespace."""
    twice = [("ns", ChannelOptions()), ("other", ChannelOptions()), ("ns", ChannelOptions())]

    assert check(Candidate(namespaces=twice)) == [("ns", "name")]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        # 2: whole seconds
        ({"history_size": 1, "history_ttl": 1.5}, ["history_ttl"]),
        ({**HISTORY, "history_meta_ttl": 90.5}, ["history_meta_ttl"]),
        # 3: both or none
        ({"history_size": 1}, ["history_ttl"]),
        ({"history_ttl": 60.0}, ["history_size"]),
        # 4: effective meta TTL
        ({**HISTORY, "history_meta_ttl": 59.0}, ["history_meta_ttl"]),
        ({**HISTORY, "history_meta_ttl": 60.0}, []),
        ({"history_size": 1, "history_ttl": 2592001.0}, ["history_ttl"]),
        # 5, 6: recovery
        ({"force_recovery": True}, ["force_recovery"]),
        ({**HISTORY, "force_recovery": True}, []),
        ({**HISTORY, "auto_cache_recover": True}, ["auto_cache_recover"] * 2),
        ({**HISTORY, "auto_cache_recover": True, "force_recovery": True}, ["auto_cache_recover"]),
        (
            {**HISTORY, "auto_cache_recover": True, "force_recovery_mode": "cache"},
            ["auto_cache_recover"],
        ),
        (
            {
                **HISTORY,
                "auto_cache_recover": True,
                "force_recovery": True,
                "force_recovery_mode": "cache",
            },
            [],
        ),
        # batches
        ({"batch_max_size": -1}, ["batch_max_size"]),
        ({"batch_max_delay": -1.0}, ["batch_max_delay"]),
        ({"batch_max_delay": 0.0001}, ["batch_max_delay"]),
        ({"client_publish_debounce_interval": -1.0}, ["client_publish_debounce_interval"]),
        ({"batch_max_delay": 0.02, "batch_flush_latest": True}, []),
        ({"batch_flush_latest": True}, ["batch_flush_latest"]),
        ({**LATEST, "allowed_delta_types": ("fossil",)}, ["batch_flush_latest"]),
        ({**LATEST, **HISTORY, "force_recovery": True}, ["batch_flush_latest"]),
        ({**LATEST, "force_positioning": True}, ["batch_flush_latest"]),
        ({**LATEST, "allow_recovery": True, "allow_positioning": True}, ["batch_flush_latest"]),
        (
            {**LATEST, **HISTORY, "allow_recovery": True, "force_recovery_mode": "cache"},
            [],
        ),
        (
            {
                **LATEST,
                "allow_recovery": True,
                "subscription_type": "map",
                "map": MapOptions(mode="persistent"),
            },
            [],
        ),
        # 7: known values
        ({"force_recovery_mode": "x"}, ["force_recovery_mode"]),
        ({"publication_data_format": "xml"}, ["publication_data_format"]),
        ({"subscription_type": "x"}, ["subscription_type"]),
        ({"allowed_delta_types": ("fossil", "x", "")}, ["allowed_delta_types"] * 2),
        ({"map": MapOptions(mode="x")}, ["map.mode"]),
        ({"map": MapOptions(client_key="x")}, ["map.client_key"]),
        ({"shared_poll": SharedPollOptions(mode="x")}, ["shared_poll.mode"]),
        # 8: the expression
        ({"channel_regex": "(?=a)"}, ["channel_regex"]),
        ({"channel_regex": "^a+$"}, []),
        # 12-14: map modes
        ({"subscription_type": "map"}, ["map.mode"]),
        ({"subscription_type": "map_clients"}, ["map.mode"]),
        ({"subscription_type": "map_users"}, ["map.mode"]),
        ({"map": MapOptions(mode="ephemeral")}, ["map.key_ttl"]),
        ({"map": MapOptions(mode="recoverable")}, ["map.key_ttl"]),
        ({"map": MapOptions(mode="persistent", key_ttl=1.0)}, ["map.key_ttl"]),
        ({"subscription_type": "map", "map": MapOptions(mode="persistent")}, []),
        ({"subscription_type": "map_clients", "map": MapOptions(mode="persistent")}, ["map.mode"]),
        ({"subscription_type": "map_users", "map": MapOptions(mode="persistent")}, ["map.mode"]),
        # 15: ephemeral has no stream
        (
            {
                "map": MapOptions(
                    mode="ephemeral", key_ttl=1.0, stream_size=1, stream_ttl=1.0, meta_ttl=1.0
                )
            },
            ["map.stream_size", "map.stream_ttl", "map.meta_ttl"],
        ),
        # 16: map meta TTL
        ({"map": replace_map(key_ttl=1.0, meta_ttl=59.0)}, ["map.meta_ttl"]),
        ({"map": replace_map(key_ttl=1.0, meta_ttl=60.0)}, []),
        ({"map": replace_map(key_ttl=1.0, meta_ttl=59.0, stream_ttl=30.0)}, []),
        ({"map": replace_map(key_ttl=1.0, meta_ttl=59.0, stream_ttl=59.5)}, ["map.meta_ttl"]),
        # 17, 18
        (
            {"map": replace_map(remove_client_on_unsubscribe=True)},
            ["map.remove_client_on_unsubscribe"],
        ),
        ({"subscription_type": "map", "map": replace_map(remove_client_on_unsubscribe=True)}, []),
        (
            {"map": replace_map(client_key="user_id", publish_proxy_enabled=True)},
            ["map.client_key"],
        ),
        ({"map": replace_map(client_key="user_id", remove_proxy_enabled=True)}, ["map.client_key"]),
        ({"map": replace_map(client_key="user_id")}, []),
        # 19: pages
        ({"map": replace_map(min_page_size=-1)}, ["map.min_page_size"]),
        ({"map": replace_map(default_page_size=-1)}, ["map.default_page_size"]),
        ({"map": replace_map(max_page_size=-1)}, ["map.max_page_size"]),
        (
            {"map": replace_map(live_transition_max_publication_limit=-1)},
            ["map.live_transition_max_publication_limit"],
        ),
        ({"map": replace_map(min_page_size=101)}, ["map.default_page_size"]),
        ({"map": replace_map(default_page_size=1001)}, ["map.default_page_size"]),
        ({"map": replace_map(max_page_size=99)}, ["map.default_page_size"]),
        ({"map": replace_map(default_page_size=99)}, ["map.default_page_size"]),
        ({"map": replace_map(min_page_size=1, default_page_size=1, max_page_size=1)}, []),
        # 21: shared poll
        (
            {
                "subscription_type": "shared_poll",
                "shared_poll": SharedPollOptions(publish_enabled=True),
            },
            ["shared_poll.publish_enabled"],
        ),
        (
            {
                "subscription_type": "shared_poll",
                "shared_poll": SharedPollOptions(publish_enabled=True, mode="versioned"),
            },
            [],
        ),
        # ours: every operation on such a map would fail
        ({"map": MapOptions(mode="persistent", meta_ttl=60.0)}, ["map.meta_ttl"]),
        ({"map": replace_map(key_ttl=120.0, meta_ttl=60.0)}, ["map.meta_ttl"]),
        # ours: what isn't a duration or a number of something
        ({"history_size": 1, "history_ttl": -1.0}, ["history_ttl"]),
        ({"history_size": 1, "history_ttl": math.inf}, ["history_ttl", "history_ttl"]),
        (
            {"map": MapOptions(subscribe_catch_up_timeout=math.nan)},
            ["map.subscribe_catch_up_timeout"],
        ),
        ({"map": replace_map(key_ttl=0.0005)}, ["map.key_ttl"]),
        ({"map": replace_map(stream_size=-1)}, ["map.stream_size"]),
        (
            {"shared_poll": SharedPollOptions(refresh_interval=-1.0, channel_shutdown_delay=-1.0)},
            ["shared_poll.refresh_interval"],
        ),
        (
            {"shared_poll": SharedPollOptions(refresh_batch_size=-1)},
            ["shared_poll.refresh_batch_size"],
        ),
    ],
)
def test_rows_2_to_21_within_one_namespace(options, fields):
    """Each is reported at the field that is wrong."""
    assert check_one(**options) == fields


def test_row_4_counts_the_meta_ttl_of_all_channels():
    """A namespace that sets none has the global one."""
    options = ChannelOptions(history_size=1, history_ttl=60.0)
    rules = ChannelRules(history_meta_ttl=59.0)

    assert check(Candidate(namespaces={"ns": options}, rules=rules)) == [("ns", "history_ttl")]


def test_row_7_the_global_format():
    """It belongs to no namespace."""
    rules = ChannelRules(publication_data_format="xml")

    assert check(Candidate(rules=rules)) == [("", "channel.publication_data_format")]


@pytest.mark.parametrize("other", ["subscribe_proxy", "publish_proxy", "sub_refresh_proxy"])
def test_row_9_a_stream_proxy_excludes_the_others(other):
    """Reported once, at the stream proxy."""
    options = {"subscribe_stream_proxy_enabled": True, f"{other}_enabled": True}

    assert check_one(**options) == ["subscribe_stream_proxy_enabled"]


@pytest.mark.parametrize("is_enabled", [False, True])
@pytest.mark.parametrize(
    "proxy", ["subscribe_proxy", "publish_proxy", "sub_refresh_proxy", "subscribe_stream_proxy"]
)
def test_row_10_a_proxys_name_must_exist(proxy, is_enabled):
    """Even where the proxy is not in use."""
    assert check_one(**{f"{proxy}_name": "unknown", f"{proxy}_enabled": is_enabled}) == [
        f"{proxy}_name"
    ]
    assert check_one(**{f"{proxy}_name": "known", f"{proxy}_enabled": is_enabled}) == []


@pytest.mark.parametrize("proxy", ["publish_proxy", "remove_proxy"])
def test_row_10_holds_for_map_proxies(proxy):
    """They are nested options."""
    assert check_one(map=replace_map(**{f"{proxy}_name": "unknown"})) == [f"map.{proxy}_name"]


def test_rows_10_and_21_hold_for_shared_polls():
    """The type cannot do without its proxy."""
    poll = {"subscription_type": "shared_poll"}

    assert check_one(**poll, shared_poll=SharedPollOptions(proxy_name="unknown")) == [
        "shared_poll.proxy_name"
    ]
    candidate = Candidate(
        namespaces={"ns": ChannelOptions(**poll)}, proxies=Proxies(), has_shared_poll_secret=True
    )
    assert check(candidate) == [("ns", "shared_poll.proxy_name")]


@pytest.mark.parametrize(
    "proxy", ["subscribe_proxy", "publish_proxy", "sub_refresh_proxy", "subscribe_stream_proxy"]
)
def test_row_11_the_default_proxy_must_be_configured(proxy):
    """Only where it is enabled."""
    candidate = Candidate(ChannelOptions(**{f"{proxy}_enabled": True}), proxies=Proxies())

    assert check(candidate) == [("", f"{proxy}_enabled")]
    assert check(Candidate(proxies=Proxies())) == []


def test_row_11_holds_for_map_proxies():
    """Each has a kind of its own."""
    maps = replace_map(publish_proxy_enabled=True, remove_proxy_enabled=True)
    candidate = Candidate(
        namespaces={"ns": ChannelOptions(map=maps)}, proxies=Proxies(defaults=("map_publish",))
    )

    assert check(candidate) == [("ns", "map.remove_proxy_enabled")]


def test_a_proxy_that_is_not_asked_yet_is_a_warning():
    """It needs no default one then; but a name has to be right."""
    proxies = Proxies(("known",), (), asked=("shared_poll_refresh",))
    enabled = ChannelOptions(subscribe_proxy_enabled=True, sub_refresh_proxy_enabled=True)
    poll = ChannelOptions(subscription_type="shared_poll")
    unknown = ChannelOptions(subscribe_proxy_enabled=True, subscribe_proxy_name="unknown")
    candidate = Candidate(
        namespaces={"on": enabled, "poll": poll, "typo": unknown},
        proxies=proxies,
        has_shared_poll_secret=True,
    )

    assert check(candidate) == [
        ("poll", "shared_poll.proxy_name"),
        ("typo", "subscribe_proxy_name"),
    ]
    assert check(candidate, warnings=True) == [
        ("on", "subscribe_proxy_enabled"),
        ("on", "sub_refresh_proxy_enabled"),
        ("typo", "subscribe_proxy_enabled"),
    ]
    asked = Candidate(enabled, proxies=Proxies(defaults=ALL_DEFAULTS))
    assert check(asked, warnings=True) == []


def test_row_10_a_handler_answers_for_its_own_kind_of_event():
    """A proxy of the list may be asked of any."""
    poll = ChannelOptions(
        subscription_type="shared_poll", shared_poll=SharedPollOptions(proxy_name="prices")
    )
    handled = {"shared_poll_refresh": {"prices"}, "cache_empty": {"prices", "fill"}}
    other = msgspec.structs.replace(poll, shared_poll=SharedPollOptions(proxy_name="fill"))

    def messages(options, **proxies):
        candidate = Candidate(
            namespaces={"ns": options}, proxies=Proxies(**proxies), has_shared_poll_secret=True
        )
        return [problem.message for problem in validate(candidate)]

    assert messages(poll, handled=handled) == []
    assert messages(other, handled=handled) == [
        "there is no proxy 'fill', but a handler of cache_empty"
    ]
    assert messages(other, handled=handled, names={"fill"}) == []


@pytest.mark.parametrize("kind", ["map_clients", "map_users"])
@pytest.mark.parametrize(
    ("prefix", "is_right"),
    [
        ("right:", True),
        ("right:x", True),
        ("$right:", True),
        ("other:", False),
        ("none:", False),
        ("right", False),
        (":", False),
    ],
)
def test_row_20_a_presence_prefix_names_a_namespace_of_its_type(kind, prefix, is_right):
    """It must exist and be of that type."""
    field = f"{kind}_presence_channel_prefix"
    candidate = Candidate(
        namespaces={
            "ns": ChannelOptions(**{field: prefix}),
            "right": ChannelOptions(subscription_type=kind, map=MAP),
            "other": ChannelOptions(subscription_type="map", map=MAP),
        }
    )

    assert check(candidate) == ([] if is_right else [("ns", field)])


def test_row_21_shared_polls_need_a_secret():
    """It is an option of the process."""
    options = ChannelOptions(subscription_type="shared_poll")

    assert check(Candidate(options, has_shared_poll_secret=False)) == [("", "subscription_type")]
    assert check(Candidate(options, has_shared_poll_secret=True)) == []


@pytest.mark.parametrize(
    ("personal", "field"),
    [
        (PersonalChannel(enabled=True, namespace="none"), "personal_channel_namespace"),
        (
            PersonalChannel(enabled=True, namespace="plain", single_connection=True),
            "single_connection",
        ),
        (PersonalChannel(enabled=True, single_connection=True), "single_connection"),
        (PersonalChannel(enabled=True, namespace="seen", single_connection=True), None),
        (PersonalChannel(enabled=True), None),
        (PersonalChannel(enabled=False, namespace="none"), None),
    ],
)
def test_row_22_the_personal_channel(personal, field):
    """Its namespace must exist, with presence if it is to find other connections."""
    candidate = Candidate(
        namespaces={"plain": ChannelOptions(), "seen": ChannelOptions(presence=True)},
        personal_channel=personal,
    )

    expected = [("", f"client.subscribe_to_user_personal_channel.{field}")] if field else []
    assert check(candidate) == expected


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"force_positioning": True}, ["force_positioning"]),
        (
            {"allow_positioning": True, "allow_recovery": True},
            ["allow_positioning", "allow_recovery"],
        ),
        ({**HISTORY, "force_positioning": True, "allow_recovery": True}, []),
        ({"history_size": -1, "history_ttl": 60.0}, ["history_size"]),
        ({"delta_publish": True}, ["delta_publish"]),
        ({"allowed_delta_types": ("fossil",)}, ["allowed_delta_types"]),
        ({"delta_publish": True, "allowed_delta_types": ("fossil",)}, []),
        (
            {"delta_publish": True, "allowed_delta_types": ("fossil",), "allow_tags_filter": True},
            ["allow_tags_filter"],
        ),
        ({"batch_max_size": 10}, ["batch_max_size"]),
        ({"batch_max_size": 10, "batch_max_delay": 0.1}, []),
        ({"keep_latest_publication": True}, ["keep_latest_publication"]),
        (
            {
                "keep_latest_publication": True,
                "allowed_delta_types": ("fossil",),
                "delta_publish": True,
            },
            [],
        ),
        ({"force_push_join_leave": True}, ["force_push_join_leave"]),
        ({"force_push_join_leave": True, "join_leave": True}, []),
        ({"allow_subscribe_for_anonymous": True}, ["allow_subscribe_for_anonymous"]),
        ({"allow_publish_for_anonymous": True}, ["allow_publish_for_anonymous"]),
        ({"allow_publish_for_anonymous": True, "allow_publish_for_subscriber": True}, []),
        ({"allow_history_for_anonymous": True}, ["allow_history_for_anonymous"]),
        ({"allow_presence_for_anonymous": True}, ["allow_presence_for_anonymous"]),
        (
            {"map": MapOptions(allow_publish_for_anonymous=True, allow_remove_for_anonymous=True)},
            ["map.allow_publish_for_anonymous", "map.allow_remove_for_anonymous"],
        ),
        (
            {"allow_presence_for_client": True, "allow_history_for_subscriber": True},
            ["allow_presence_for_client", "allow_history_for_subscriber"],
        ),
        (
            {
                **HISTORY,
                "presence": True,
                "allow_presence_for_subscriber": True,
                "allow_history_for_client": True,
            },
            [],
        ),
        ({"subscription_type": "map", "map": MAP}, []),
        (
            {
                "subscription_type": "map",
                "map": MAP,
                **HISTORY,
                "force_recovery": True,
                "allow_publish_for_client": True,
            },
            ["history_size", "force_recovery", "allow_publish_for_client"],
        ),
    ],
)
def test_questionable_combinations_are_warnings(options, fields):
    """They are accepted, and said to be without use."""
    assert check_one(warnings=True, **options) == fields
    assert check_one(**options) == []


def test_a_cache_empty_proxy_is_for_caches():
    """In stream mode nobody is told."""
    enabled = {**HISTORY, "force_recovery": True, "cache_empty_proxy_enabled": True}
    assert check_one(warnings=True, **enabled) == ["cache_empty_proxy_enabled"]
    assert check_one(warnings=True, **enabled, force_recovery_mode="cache") == []


def test_proxies_that_cannot_be_are_warnings():
    """A configuration that uses them can be imported, and says that they don't work yet."""
    options = ChannelOptions(
        subscribe_proxy_enabled=True,
        publish_proxy_name="elsewhere",
    )
    candidate = Candidate(namespaces={"ns": options})

    assert check(candidate) == []
    assert check(candidate, warnings=True) == [
        ("ns", "subscribe_proxy_enabled"),
    ]


@pytest.mark.parametrize(
    ("name", "rules"),
    [("a.b", ChannelRules(namespace_boundary=".")), ("-ab", ChannelRules(private_prefix="-"))],
)
def test_a_namespace_that_no_channel_reaches_is_a_warning(name, rules):
    """Its name has a special character of this configuration in it."""
    candidate = Candidate(namespaces={name: ChannelOptions()}, rules=rules)

    assert check(candidate) == []
    assert check(candidate, warnings=True) == [(name, "name")]


def test_everything_is_reported_at_once():
    """Problems of all namespaces and fields, each with a text of its own."""
    broken = ChannelOptions(history_size=1, channel_regex="(", subscription_type="x")
    candidate = Candidate(broken, namespaces={"a": broken, "other": broken})

    found = validate(candidate)

    assert {(problem.namespace, problem.field) for problem in found} == {
        ("a", "name"),
        *(
            (name, where)
            for name in ("", "a", "other")
            for where in ("history_ttl", "channel_regex", "subscription_type")
        ),
    }
    assert all(problem.message and not problem.is_warning for problem in found)


def test_a_problem_reads_well():
    """The text says what would be right."""
    found = validate(Candidate(ChannelOptions(publication_data_format="xml")))

    message = "unknown value 'xml', expected one of: empty, json, json_object, binary"
    assert found == [Problem("", "publication_data_format", message)]
