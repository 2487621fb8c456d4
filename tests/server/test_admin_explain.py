"""The page that explains decisions gives the server's own answer, with its wire code."""

from __future__ import annotations

import time

import jwt
import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse_lazy

from admin_ui.explain import Question, explain, features
from realtime.conf import loader
from realtime.conf.options import ClientOptions, ProcessOptions, TokenOptions
from realtime.models import Namespace
from realtime.namespaces.options import ChannelOptions, MapOptions
from realtime.namespaces.table import NamespaceTable


PAGE = reverse_lazy("admin:realtime_namespace_explain")
SECRET = "a secret for tests, long enough for HS256"
NOW = 1_700_000_000.0
OPTIONS = ProcessOptions(client=ClientOptions(token=TokenOptions(hmac_secret_key=SECRET)))
TABLE = NamespaceTable(
    namespaces={
        "open": ChannelOptions(
            allow_subscribe_for_client=True,
            allow_publish_for_subscriber=True,
            allow_history_for_client=True,
            history_size=10,
            history_ttl=60.0,
            force_recovery=True,
        ),
        "closed": ChannelOptions(),
        "poll": ChannelOptions(subscription_type="shared_poll", allow_subscribe_for_client=True),
        "lim": ChannelOptions(allow_user_limited_channels=True),
        "batch": ChannelOptions(
            allow_subscribe_for_client=True,
            batch_max_size=10,
            batch_max_delay=0.02,
            client_publish_debounce_interval=0.25,
        ),
        "latest": ChannelOptions(
            allow_subscribe_for_client=True, batch_max_delay=1.0, batch_flush_latest=True
        ),
        "pres": ChannelOptions(presence=True, allow_presence_for_subscriber=True),
        "board": ChannelOptions(
            subscription_type="map",
            allow_subscribe_for_client=True,
            map_clients_presence_channel_prefix="who:",
            map=MapOptions(
                mode="persistent", allow_publish_for_subscriber=True, client_key="user_id"
            ),
        ),
        "who": ChannelOptions(
            subscription_type="map_clients", map=MapOptions(mode="ephemeral", key_ttl=60)
        ),
    }
)


def token(**claims):
    return jwt.encode({"exp": NOW + 60, **claims}, SECRET)


def ask(operation, channel, **more):
    return explain(Question(operation, channel, **more), TABLE, OPTIONS, NOW)


@pytest.mark.parametrize(
    ("operation", "channel", "more", "code", "rule"),
    [
        ("subscribe", "open:a", {"user": "7"}, 0, "allow_subscribe_for_client"),
        ("subscribe", "open:a", {}, 103, "denied"),
        ("subscribe", "board:a", {"user": "7"}, 0, "allow_subscribe_for_client"),
        ("subscribe", "who:a", {"user": "7"}, 103, "denied"),
        ("publish", "board:a", {"user": "7"}, 103, "denied"),
        ("publish", "board:a", {"user": "7", "is_subscribed": True}, 0, "map.client_key"),
        ("remove", "board:a", {"user": "7", "is_subscribed": True}, 103, "denied"),
        ("remove", "open:a", {"user": "7", "is_subscribed": True}, 103, "type"),
        ("subscribe", "closed:a", {"user": "7"}, 103, "denied"),
        ("subscribe", "poll:a", {"user": "7"}, 0, "allow_subscribe_for_client"),
        ("subscribe", "poll:a", {}, 103, "denied"),
        ("subscribe", "nope:a", {"user": "7"}, 102, "namespace"),
        ("subscribe", "$open:a", {"user": "7"}, 103, "private"),
        ("subscribe", "lim:a#7,8", {"user": "8"}, 0, "user_limited"),
        ("subscribe", "lim:a#7,8", {"user": "9"}, 103, "denied"),
        ("subscribe", "open:é", {"user": "7"}, 107, "name"),
        ("subscribe", "open:" + "a" * 300, {"user": "7"}, 107, "length"),
        ("subscribe", "open:a", {"user": "7", "is_subscribed": True}, 105, "duplicate"),
        ("subscribe", "", {"user": "7"}, 3501, "channel"),
        ("publish", "open:a", {"user": "7", "data": b"{}"}, 103, "denied"),
        ("publish", "open:a", {"user": "7", "data": b""}, 107, "data_format"),
        (
            "publish",
            "open:a",
            {"user": "7", "data": b"{}", "is_subscribed": True},
            0,
            "allow_publish_for_subscriber",
        ),
        ("history", "open:a", {"user": "7"}, 0, "allow_history_for_client"),
        ("history", "closed:a", {"user": "7"}, 108, "history"),
        ("presence", "closed:a", {"user": "7"}, 108, "presence"),
        ("presence", "pres:a", {"user": "7"}, 103, "denied"),
        (
            "presence",
            "pres:a",
            {"user": "7", "is_subscribed": True},
            0,
            "allow_presence_for_subscriber",
        ),
    ],
)
def test_the_last_step_is_the_rule_that_decides(operation, channel, more, code, rule):
    """With the code that the client would see."""
    answer = ask(operation, channel, **more)

    assert answer.code == code
    assert answer.is_allowed == (code == 0)
    assert answer.is_disconnect == (code >= 3000)
    assert answer.steps[-1].rule == rule
    assert answer.steps[-1].outcome == ("refuse" if code else "grant")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("garbage", 3500),
        (jwt.encode({"sub": "7"}, "another secret, as long as the right one"), 3500),
        (token(sub="7", exp=NOW - 60), 109),
        (token(sub="7", channel="open:a"), 3500),
        (token(sub="7", channels=["nope:a"]), 102),
    ],
)
def test_a_connection_token_that_does_not_do_ends_it(text, code):
    """The connect command is refused, and the rest is not tried."""
    answer = ask("subscribe", "open:a", connection_token=text)

    assert answer.code == code
    assert not answer.is_connected
    assert [step.rule for step in answer.steps] == ["connection_token"]


def test_a_connection_token_says_who_asks():
    """Its user counts, not the one in the form."""
    answer = ask("subscribe", "open:a", user="", connection_token=token(sub="7"))

    assert answer.is_allowed
    assert answer.is_connected
    assert answer.user == "7"


def test_a_connection_token_subscribes():
    """A server-side subscription counts as one."""
    text = token(sub="7", subs={"open:a": {}})

    answer = ask("publish", "open:a", connection_token=text, data=b"{}")

    assert answer.is_allowed


def test_anonymous_tokens_may_be_off():
    """``client.disallow_anonymous_connection_tokens``."""
    client = ClientOptions(
        token=TokenOptions(hmac_secret_key=SECRET), disallow_anonymous_connection_tokens=True
    )
    question = Question("subscribe", "open:a", connection_token=token(sub=""))

    answer = explain(question, TABLE, ProcessOptions(client=client), NOW)

    assert answer.code == 3507


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (token(sub="7", channel="$closed:a"), 0),
        ("garbage", 103),
        (token(sub="7", channel="$closed:a", exp=NOW - 60), 109),
        (token(sub="7", channel="nope:a"), 102),
        (token(sub="7", channel="closed:b"), 3500),
        (token(sub="8", channel="$closed:a"), 3500),
        (token(sub="7"), 103),
        (token(sub="7", channel="$closed:a", expire_at=int(NOW) - 60), 110),
    ],
)
def test_a_subscription_token_decides_alone(text, code):
    """Where there is one, no other rule is asked."""
    answer = ask("subscribe", "$closed:a", user="7", subscription_token=text)

    assert answer.code == code
    assert answer.steps[-1].rule == "subscription_token"


def test_insecure_mode_grants_what_no_rule_does():
    """And the trace says so."""
    options = ProcessOptions(client=ClientOptions(insecure=True))

    answer = explain(Question("subscribe", "closed:a"), TABLE, options, NOW)

    assert answer.is_allowed
    assert answer.steps[-1].rule == "client.insecure"


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def viewer(client, db):
    """A client that may view namespaces and nothing else."""
    user = User.objects.create_user("vic", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_namespace"))
    client.force_login(user)
    return client


@pytest.fixture
def token_key(settings):
    """The process verifies tokens with ``SECRET``."""
    settings.REALTIME = {"client": {"token": {"hmac_secret_key": SECRET}}}
    loader.reset()
    yield
    loader.reset()


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (
            "batch:a",
            [
                "receives messages 10 at a time or 20ms after the first",
                "asked to publish at most every 250ms",
            ],
        ),
        ("latest:a", ["receives the latest publication 1s after the first"]),
        ("open:a", ["positioned", "recoverable"]),
    ],
)
def test_what_a_subscription_has_is_said_in_words(channel, expected):
    """As the namespace grants it to a client that asks for nothing."""
    granted = ask("subscribe", channel, user="7").granted

    assert features(granted) == expected


def test_the_page_shows_the_rows_decision(viewer):
    """Code, text, every rule, and a link to the namespace."""
    row = Namespace.objects.create(name="chat", allow_publish_for_subscriber=True)

    page = viewer.post(
        PAGE, {"operation": "publish", "channel": "chat:a", "user": "7", "payload": "{}"}
    ).content.decode()

    assert "permission denied" in page
    assert "<code>103</code>" in page
    assert "on, but the client is not subscribed" in page
    assert f"/namespace/{row.pk}/change/" in page


def test_the_form_is_filled_from_the_link(viewer):
    """The link on a namespace's page brings its name."""
    assert b'value="chat:"' in viewer.get(PAGE, {"channel": "chat:"}).content


def test_tokens_are_not_sent_back(viewer, token_key):
    """A token is a secret of somebody else's."""
    text = jwt.encode({"sub": "7", "exp": time.time() + 60}, SECRET)

    response = viewer.post(
        PAGE,
        {
            "operation": "subscribe",
            "channel": "a",
            "connection_token": text,
            "subscription_token": text,
        },
    )

    assert "no-store" in response["Cache-Control"]
    assert b"valid: the user is" in response.content
    assert text.encode() not in response.content


def test_what_is_typed_is_escaped(viewer):
    """A channel's name is anybody's text."""
    page = viewer.post(
        PAGE, {"operation": "subscribe", "channel": "<script>x</script>", "user": "<b>"}
    ).content

    assert b"<script>x" not in page
    assert b"<b>" not in page


def test_a_configuration_that_is_not_in_force_is_told(viewer):
    """Rather than explained."""
    Namespace.objects.create(name="chat")
    Namespace.objects.filter(name="chat").update(history_size=10)

    page = viewer.post(PAGE, {"operation": "subscribe", "channel": "chat:a"}).content

    assert b"history_ttl" in page
    assert b"not in force" in page


def test_the_page_needs_the_permission_to_view_namespaces(client, db):
    """Staff alone may not, and strangers are sent to the login."""
    assert client.get(PAGE).status_code == 302
    client.force_login(User.objects.create_user("eve", is_staff=True))

    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE, {"operation": "subscribe"}).status_code == 403
