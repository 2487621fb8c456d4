"""Namespaces in the admin: what is saved, refused, shown and remembered."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.urls import reverse, reverse_lazy

from realtime.conf import loader
from realtime.conf.snapshot import load_configuration, read_revision
from realtime.models import ConfigurationChange, Namespace
from realtime.namespaces.options import ChannelOptions


pytestmark = pytest.mark.django_db
LIST = reverse_lazy("admin:realtime_namespace_changelist")
ADD = reverse_lazy("admin:realtime_namespace_add")


@pytest.fixture
def operator(client):
    """A client that is logged in as ``ada``, who may do everything."""
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def reader(client):
    """A client that is logged in as ``vic``, who may see everything and change nothing."""
    user = User.objects.create_user("vic", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="realtime", codename__startswith="view_")
    )
    client.force_login(user)
    return client


@pytest.fixture
def personal_channel(settings):
    """Every user has a channel in the namespace ``mine``."""
    settings.REALTIME = {
        "client": {
            "subscribe_to_user_personal_channel": {
                "enabled": True,
                "personal_channel_namespace": "mine",
            }
        }
    }
    loader.reset()
    yield
    loader.reset()


def change_url(name):
    return reverse("admin:realtime_namespace_change", args=[Namespace.objects.get(name=name).pk])


def form_values(response):
    """What a browser sends when nothing is edited."""
    form = response.context["adminform"].form
    values = {}
    for name in form.fields:
        value = form[name].value()
        if not isinstance(value, bool | list):
            value = form[name].field.widget.format_value(value)
        if value not in (None, False, []):
            values[name] = "on" if value is True else value
    return values


def post(client, url, **edits):
    """Open a form, edit some fields, and save it; ``None`` unticks a box."""
    values = {**form_values(client.get(url)), **edits}
    return client.post(url, {name: value for name, value in values.items() if value is not None})


def errors(response):
    return response.context["adminform"].form.errors.get_json_data()


def test_a_namespace_is_added_and_is_what_the_server_uses(operator):
    """Durations are entered as people write them."""
    response = post(operator, ADD, name="chat", presence="on", history_size=10, history_ttl="1h30m")

    assert response.status_code == 302
    options = load_configuration(loader.get_options()).table.namespaces["chat"]
    assert options == ChannelOptions(presence=True, history_size=10, history_ttl=5400.0)


def test_saving_an_untouched_form_changes_nothing(operator):
    """What the form shows is what it reads back, in every field."""
    Namespace.objects.create(
        name="chat",
        history_size=10,
        history_ttl=5400,
        history_meta_ttl=86461,
        allowed_delta_types=["fossil"],
        delta_publish=True,
        map_key_ttl=0.25,
        map_mode="ephemeral",
        shared_poll_channel_shutdown_delay=-1,
    )
    before = Namespace.objects.values().get(name="chat")

    response = post(operator, change_url("chat"))

    assert response.status_code == 302
    assert Namespace.objects.values().get(name="chat") == before
    assert not ConfigurationChange.objects.exists()


@pytest.mark.parametrize(
    ("edits", "field", "told"),
    [
        ({"history_size": 10}, "history_ttl", "history_size"),
        ({"history_ttl": "5m"}, "history_size", "history_ttl"),
        ({"history_size": 10, "history_ttl": "1500ms"}, "history_ttl", "whole"),
        ({"history_size": 10, "history_ttl": "5"}, "history_ttl", "unit"),
        ({"history_size": 10, "history_ttl": "soon"}, "history_ttl", "1h30m"),
        ({"channel_regex": "(a"}, "channel_regex", "missing"),
        ({"channel_regex": "(?=a)"}, "channel_regex", "dialect"),
        ({"force_recovery": "on"}, "force_recovery", "history"),
        ({"name": "no good"}, "name", "two or more"),
        ({"name": "x"}, "name", "two or more"),
        ({"name": ""}, "name", "required"),
        ({"name": "taken"}, "name", "exists"),
        ({"subscription_type": "map"}, "map_mode", "required"),
        ({"map_mode": "ephemeral"}, "map_key_ttl", "required"),
        (
            {"map_clients_presence_channel_prefix": "nope:"},
            "map_clients_presence_channel_prefix",
            "nope",
        ),
        ({"history_size": 2**40, "history_ttl": "5m"}, "history_size", "less than"),
    ],
)
def test_an_error_stands_at_the_field_that_is_wrong(operator, edits, field, told):
    """Nothing is saved, and the message is beside the input."""
    Namespace.objects.create(name="taken")
    revision = read_revision()

    response = post(operator, ADD, **{"name": "chat", **edits})

    assert response.status_code == 200
    found = errors(response)
    assert list(found) == [field]
    assert told in found[field][0]["message"]
    assert read_revision() == revision


def test_all_errors_are_shown_at_once(operator):
    """An operator mends a form in one go."""
    response = post(operator, ADD, name="chat", history_size=10, channel_regex="(a")

    assert set(errors(response)) == {"history_ttl", "channel_regex"}


def test_what_is_questionable_is_saved_and_told(operator):
    """Warnings are messages after the save."""
    post(operator, ADD, name="chat", force_push_join_leave="on")

    page = operator.get(LIST)

    assert Namespace.objects.filter(name="chat").exists()
    assert next(str(message) for message in page.context["messages"]) == (
        "Namespace chat: force_push_join_leave has no effect without join_leave"
    )


def test_an_edit_must_not_break_another_namespace(operator):
    """The whole configuration that would result is judged."""
    Namespace.objects.create(
        name="people", subscription_type="map_clients", map_mode="ephemeral", map_key_ttl=60
    )
    Namespace.objects.create(name="chat", map_clients_presence_channel_prefix="people:")

    response = post(operator, change_url("people"), name="persons")

    assert "channel.namespaces[chat].map_clients_presence_channel_prefix" in str(errors(response))
    assert Namespace.objects.filter(name="people").exists()


def test_a_broken_configuration_can_be_mended_row_by_row(operator):
    """What was wrong before does not stand in the way of mending something else; it is told."""
    Namespace.objects.create(name="one")
    Namespace.objects.create(name="two")
    Namespace.objects.exclude(name="").update(history_size=10)

    response = post(operator, change_url("one"), history_size=0)

    assert response.status_code == 302
    told = [str(message) for message in operator.get(LIST).context["messages"]]
    assert any("channel.namespaces[two].history_ttl" in text for text in told)


def test_the_row_without_namespace_can_be_edited_but_not_named_or_deleted(operator):
    """There is exactly one, always."""
    url = change_url("")

    response = post(operator, url, presence="on")

    assert response.status_code == 302
    assert Namespace.objects.get(name="").presence
    assert b'name="name"' not in operator.get(url).content
    assert operator.post(url.replace("change", "delete"), {"post": "yes"}).status_code == 403
    chosen = [str(row.pk) for row in Namespace.objects.all()]
    page = operator.post(
        LIST, {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
    )
    assert b"always exist" in page.content
    assert Namespace.objects.filter(name="").exists()


def test_a_namespace_that_process_options_need_cannot_be_deleted(operator, personal_channel):
    """The page says what would become invalid."""
    row = Namespace.objects.create(name="mine")

    page = operator.post(reverse("admin:realtime_namespace_delete", args=[row.pk]), {"post": "yes"})

    assert b"personal_channel_namespace" in page.content
    assert Namespace.objects.filter(name="mine").exists()


# --- who changed what ---------------------------------------------------------------------------


def test_an_edit_is_remembered_with_old_and_new_values(operator):
    """In our own record, in Django's log, and on the row's history page."""
    Namespace.objects.create(name="chat", history_size=10, history_ttl=60)
    url = change_url("chat")

    post(operator, url, history_ttl="5m", presence="on")

    record = ConfigurationChange.objects.get()
    assert (record.actor, record.source, record.action) == ("ada", "admin", "changed")
    assert record.changes == [
        ["presence", False, True],
        ["history_ttl", "1m0s", "5m0s"],
    ]
    message = LogEntry.objects.get().get_change_message()
    assert message == "presence: false → true; history_ttl: 1m0s → 5m0s"
    page = operator.get(url.replace("change", "history")).content.decode()
    assert re.search(r"history_ttl</th>.*1m0s.*5m0s", page)


def test_adding_renaming_and_deleting_are_remembered(operator):
    """A record outlives its row, and knows the former name."""
    post(operator, ADD, name="chat", presence="on")
    post(operator, change_url("chat"), name="talk")
    row = Namespace.objects.get(name="talk")
    operator.post(reverse("admin:realtime_namespace_delete", args=[row.pk]), {"post": "yes"})

    told = [
        (record.action, record.row_name, record.changes)
        for record in ConfigurationChange.objects.order_by("pk")
    ]

    assert told == [
        ("added", "chat", [["presence", False, True]]),
        ("changed", "chat", [["name", "chat", "talk"]]),
        ("deleted", "talk", [["presence", True, False]]),
    ]


def test_deleting_several_remembers_each(operator):
    """The list's action, too."""
    rows = [Namespace.objects.create(name=name) for name in ("one", "two")]

    operator.post(
        LIST,
        {
            "action": "delete_selected",
            "_selected_action": [str(row.pk) for row in rows],
            "post": "yes",
        },
    )

    assert not Namespace.objects.exclude(name="").exists()
    assert {record.row_name for record in ConfigurationChange.objects.all()} == {"one", "two"}


def test_nobody_edits_the_record(operator):
    """Not even a superuser."""
    post(operator, ADD, name="chat", presence="on")
    record = ConfigurationChange.objects.get()
    base = "admin:realtime_configurationchange"

    assert operator.get(reverse(f"{base}_changelist")).status_code == 200
    page = operator.get(reverse(f"{base}_change", args=[record.pk]))
    assert b"presence" in page.content
    assert b"_save" not in page.content
    assert operator.get(reverse(f"{base}_add")).status_code == 403
    assert operator.post(reverse(f"{base}_delete", args=[record.pk])).status_code == 403


# --- permissions --------------------------------------------------------------------------------


def test_a_reader_sees_rows_and_can_change_nothing(reader):
    """Read-only, with durations as text and the same help."""
    Namespace.objects.create(name="chat", history_size=10, history_ttl=5400)
    url = change_url("chat")

    page = reader.get(url)

    assert b"1h30m" in page.content
    assert b"5400" not in page.content
    assert b"_save" not in page.content
    assert b"How long history is kept" in page.content
    assert reader.post(url, {"name": "other"}).status_code == 403
    assert reader.get(ADD).status_code == 403
    assert reader.get(LIST).status_code == 200
    assert reader.get(url.replace("change", "history")).status_code == 200


def test_staff_without_permissions_see_nothing(client):
    """Being staff is not enough."""
    client.force_login(User.objects.create_user("eve", is_staff=True))
    url = change_url("")

    for page in (LIST, url, url.replace("change", "history"), ADD):
        assert client.get(page).status_code == 403


# --- list and index -----------------------------------------------------------------------------


def test_the_list_sums_up_who_may_do_what(operator):
    """One line is enough to see what a namespace is for."""
    Namespace.objects.create(
        name="chat",
        allow_subscribe_for_client=True,
        allow_subscribe_for_anonymous=True,
        allow_publish_for_subscriber=True,
        history_size=100,
        history_ttl=300,
        force_recovery=True,
    )

    page = operator.get(LIST, {"q": "chat"}).content.decode()

    for text in ("anybody", "subscribers", "100 in 5m", "always (stream)"):
        assert text in page
    assert "(without namespace)" not in page


def test_the_list_says_of_maps_what_holds_for_maps(operator):
    """Who writes keys, and whether subscribers are caught up with; options of streams say nothing there."""
    Namespace.objects.create(
        name="board",
        subscription_type="map",
        map_mode="persistent",
        map_allow_publish_for_subscriber=True,
        allow_publish_for_client=True,
    )

    page = operator.get(LIST, {"q": "board"}).content.decode()

    assert "always (map)" in page
    assert "subscribers" in page
    assert "any user" not in page


def test_options_without_effect_say_so(operator):
    """In the form, above the group that holds them."""
    page = operator.get(ADD).content.decode()

    assert page.count("without effect yet") == 1
    assert "Without effect yet are <code>map.publish_proxy_enabled</code>" in page


def test_the_index_is_ours_and_links_the_explanation(operator):
    """Django's admin under our name."""
    page = operator.get(reverse("admin:index")).content.decode()

    assert "Tidewire" in page
    assert reverse("admin:realtime_namespace_explain") in page
