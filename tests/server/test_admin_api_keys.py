"""API keys in the admin: shown once, then known to nobody but their holder."""

from __future__ import annotations

import hashlib
import logging
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.urls import reverse, reverse_lazy

from api.keys import CONTAINERS
from api.methods import METHODS
from realtime.conf.loader import get_options
from realtime.conf.snapshot import load_configuration, read_revision
from realtime.models import ApiKey, ConfigurationChange


pytestmark = pytest.mark.django_db
LIST = reverse_lazy("admin:realtime_apikey_changelist")
ADD = reverse_lazy("admin:realtime_apikey_add")
REVOKE = reverse_lazy("admin:realtime_apikey_revoke")
KEY = re.compile(r"tw_[-_A-Za-z0-9]{43}")


@pytest.fixture
def operator(client):
    """A client that is logged in as ``ada``, who may do everything."""
    client.force_login(User.objects.create_superuser("ada"))
    return client


def make(name="billing", scopes=("publish",)):
    row, _ = ApiKey.generate(name, scopes, "ada")
    row.save()
    return row


def change_url(row):
    return reverse("admin:realtime_apikey_change", args=[row.pk])


def test_a_new_key_is_in_the_answer_and_works(operator):
    """The answer to the POST has the key; its digest is in the snapshot."""
    response = operator.post(ADD, {"name": "billing", "scopes": ["publish", "broadcast"]})

    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    (key,) = set(KEY.findall(response.content.decode()))
    found = load_configuration(get_options()).api_keys[hashlib.sha256(key.encode()).digest()]
    assert found.scopes == {"publish", "broadcast"}
    row = ApiKey.objects.get()
    assert (row.name, row.created_by) == ("billing", "ada")


def test_a_key_is_nowhere_but_in_that_answer(operator, caplog):
    """Not on a later page, nor in the database, the session, a message or a log."""
    caplog.set_level(logging.DEBUG)
    response = operator.post(ADD, {"name": "billing", "scopes": ["publish"]})
    (key,) = set(KEY.findall(response.content.decode()))
    secret = key[len(ApiKey.objects.get().prefix) :]
    row = ApiKey.objects.get()

    pages = [
        operator.get(url).content.decode()
        for url in (
            LIST,
            change_url(row),
            change_url(row).replace("change", "history"),
            reverse("admin:index"),
            reverse("admin:realtime_configurationchange_changelist"),
        )
    ]

    stored = [
        str(list(model.objects.values())) for model in (ApiKey, ConfigurationChange, LogEntry)
    ]
    sessions = [str(session.get_decoded()) for session in Session.objects.all()]
    cookies = str(operator.cookies)
    for text in (*pages, *stored, *sessions, cookies, caplog.text):
        assert secret not in text
        assert hashlib.sha256(key.encode()).hexdigest() not in text or text in stored


def test_sending_the_form_again_makes_no_second_key(operator):
    """Names are unique, so that a reload of the answer is an error and not another key."""
    operator.post(ADD, {"name": "billing", "scopes": ["publish"]})

    response = operator.post(ADD, {"name": "billing", "scopes": ["publish"]})

    assert "already exists" in str(response.context["adminform"].form.errors)
    assert not KEY.search(response.content.decode())
    assert ApiKey.objects.count() == 1


def test_everything_includes_the_rest(operator):
    """One scope says it all."""
    operator.post(ADD, {"name": "all", "scopes": ["publish", "*"]})

    assert ApiKey.objects.get().scopes == ["*"]


def test_every_method_of_the_api_can_be_a_scope(operator):
    """But those that only carry others."""
    names = sorted(METHODS.keys() - CONTAINERS)
    operator.post(ADD, {"name": "all by name", "scopes": names})

    assert ApiKey.objects.get().scopes == names


@pytest.mark.parametrize("scopes", [[], ["nonsense"]])
def test_scopes_are_names_of_methods(operator, scopes):
    """At least one, and only those that there are."""
    response = operator.post(ADD, {"name": "billing", "scopes": scopes})

    assert "scopes" in response.context["adminform"].form.errors
    assert not ApiKey.objects.exists()


def test_name_and_scopes_can_be_edited_and_nothing_else(operator):
    """A posted digest or prefix is ignored."""
    row = make()
    before = ApiKey.objects.values("digest", "prefix", "created_at", "created_by").get()

    operator.post(
        change_url(row),
        {"name": "bills", "scopes": ["history"], "digest": "0" * 64, "prefix": "x"},
    )

    after = ApiKey.objects.get()
    assert (after.name, after.scopes) == ("bills", ["history"])
    assert ApiKey.objects.values("digest", "prefix", "created_at", "created_by").get() == before
    assert ConfigurationChange.objects.get().changes == [
        ["name", "billing", "bills"],
        ["scopes", ["publish"], ["history"]],
    ]


def test_revoking_asks_first_and_is_final(operator):
    """The list's action leads to a question; afterwards the key is refused and read-only."""
    row, other = make(), make("other")
    revision = read_revision()

    asked = operator.post(LIST, {"action": "revoke_selected", "_selected_action": [str(row.pk)]})
    page = operator.get(asked.url)
    assert b"billing" in page.content
    assert b"other" not in page.content
    assert ApiKey.objects.active().count() == 2
    operator.post(REVOKE, {"ids": str(row.pk)})

    assert [found.name for found in load_configuration(get_options()).api_keys.values()] == [
        other.name
    ]
    assert read_revision() > revision
    assert b"_save" not in operator.get(change_url(row)).content
    assert operator.post(change_url(row), {"name": "x", "scopes": ["*"]}).status_code == 403
    (change,) = ConfigurationChange.objects.get().changes
    assert change[:2] == ["revoked_at", None]
    when = ApiKey.objects.get(pk=row.pk).revoked_at
    operator.post(REVOKE, {"ids": str(row.pk)})
    assert ApiKey.objects.get(pk=row.pk).revoked_at == when


@pytest.mark.parametrize("ids", ["", "x", "999", "1;2", "9" * 30])
def test_revoking_what_is_not_there_is_told(operator, ids):
    """Nothing happens."""
    make()

    response = operator.post(REVOKE, {"ids": ids}, follow=True)

    assert b"no such key" in response.content
    assert ApiKey.objects.active().count() == 1


def test_keys_need_permissions(client):
    """Who may see keys may not make, edit or revoke them."""
    user = User.objects.create_user("vic", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_apikey"))
    client.force_login(user)
    row = make()

    assert client.get(LIST).status_code == 200
    page = client.get(change_url(row))
    assert page.status_code == 200
    assert str(REVOKE).encode() not in page.content
    assert client.get(ADD).status_code == 403
    assert client.post(REVOKE, {"ids": str(row.pk)}).status_code == 403
    assert client.post(change_url(row), {"name": "x"}).status_code == 403
    assert ApiKey.objects.active().count() == 1


def test_deleting_is_remembered(operator):
    """The record says what the key could do."""
    row = make()

    operator.post(reverse("admin:realtime_apikey_delete", args=[row.pk]), {"post": "yes"})

    record = ConfigurationChange.objects.get()
    assert (record.action, record.row_name) == ("deleted", "billing")
    assert ["scopes", ["publish"], []] in record.changes
