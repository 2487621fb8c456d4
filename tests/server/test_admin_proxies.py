"""Proxies in the admin: what is saved, refused, hidden, protected and remembered."""

from __future__ import annotations

import json
import re
import sys
import types

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.urls import reverse, reverse_lazy

from realtime import handlers
from realtime.conf import loader
from realtime.conf.proxy_rows import MASK
from realtime.conf.snapshot import load_configuration, read_revision
from realtime.models import ConfigurationChange, Namespace, Proxy
from tests.server.test_admin_namespaces import errors, form_values, post
from tests.unit.servers.certificates import Authority


pytestmark = pytest.mark.django_db
LIST = reverse_lazy("admin:realtime_proxy_changelist")
ADD = reverse_lazy("admin:realtime_proxy_add")
ENDPOINT = "https://app.example.com/poll"


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
def full():
    """A proxy with something in every kind of field."""
    authority = Authority()
    issued = authority.issue("tidewire")
    return Proxy.objects.create(
        name="prices",
        endpoint=ENDPOINT,
        timeout=0.25,
        http_headers=["Cookie", "Origin"],
        http_static_headers={"X-Key": "s3cret", "Authorization": "Bearer ${TIDEWIRE_VAR_TOKEN}"},
        http_status_to_code_transforms=[
            {"status_code": 403, "to_error": {"code": 403, "message": "no", "temporary": False}}
        ],
        http_tls_enabled=True,
        http_tls_server_ca_pem=authority.pem,
        http_tls_cert_pem=issued.cert_pem,
        http_tls_key_pem=issued.key_pem,
        grpc_credentials_value="gr3pc",
    )


@pytest.fixture(autouse=True)
def token(monkeypatch):
    """The variable that the proxy refers to, and no handlers."""
    monkeypatch.setenv("TIDEWIRE_VAR_TOKEN", "from the environment")
    monkeypatch.setattr(handlers, "_handlers", {})


def change_url(row):
    return reverse("admin:realtime_proxy_change", args=[row.pk])


def test_a_proxy_is_added_and_is_what_the_server_uses(operator):
    """Durations and headers are entered as people write them."""
    response = post(
        operator,
        ADD,
        name="prices",
        endpoint=ENDPOINT,
        timeout="500 ms",
        http_static_headers="X-Key: a: b\r\n\r\n Authorization:Bearer ${TIDEWIRE_VAR_TOKEN}",
        http_headers="Cookie\r\nOrigin\r\n",
    )

    assert response.status_code == 302, errors(response)
    proxy = load_configuration(loader.get_options()).proxies["prices"]
    assert (proxy.endpoint, proxy.timeout) == (ENDPOINT, 0.5)
    assert proxy.http.static_headers == {
        "X-Key": "a: b",
        "Authorization": "Bearer from the environment",
    }
    assert proxy.http_headers == ("Cookie", "Origin")


def test_the_timeout_is_offered_with_its_default(operator):
    """As Centrifugo has it."""
    assert form_values(operator.get(ADD))["timeout"] == "1s"


def test_saving_an_untouched_form_changes_nothing(operator, full):
    """What the form shows is what it reads back, secrets included."""
    before = Proxy.objects.values().get()

    response = post(operator, change_url(full))

    assert response.status_code == 302, errors(response)
    assert Proxy.objects.values().get() == before
    assert not ConfigurationChange.objects.exists()


def test_no_secret_gets_into_a_page(operator, full):
    """Nor into the history, the log of the admin or the record of changes."""
    issued_key = full.http_tls_key_pem.splitlines()[1]
    pages = [operator.get(url).content.decode() for url in (change_url(full), LIST)]
    assert "X-Key: ********" in pages[0]
    assert "Bearer ${TIDEWIRE_VAR_TOKEN}" in pages[0]
    post(
        operator,
        change_url(full),
        http_static_headers=f"X-Key: n3w\r\nX-Other: s3cond\r\nAuthorization: {MASK}",
        grpc_credentials_value="an0ther",
    )
    full.refresh_from_db()
    # The mask stands for what was stored, even where that was shown.
    assert full.http_static_headers == {
        "X-Key": "n3w",
        "X-Other": "s3cond",
        "Authorization": "Bearer ${TIDEWIRE_VAR_TOKEN}",
    }
    assert full.grpc_credentials_value == "an0ther"

    history = reverse("admin:realtime_proxy_history", args=[full.pk])
    pages.append(operator.get(history).content.decode())
    pages.append(json.dumps(list(ConfigurationChange.objects.values_list("changes", flat=True))))
    pages.append(" ".join(LogEntry.objects.values_list("change_message", flat=True)))
    assert "X-Other: ********" in pages[2]
    for page in pages:
        for secret in ("s3cret", "gr3pc", "n3w", "s3cond", "an0ther", issued_key):
            assert secret not in page


def test_that_a_secret_changed_is_remembered(operator, full):
    """Though not what it was or is."""
    post(
        operator,
        change_url(full),
        http_tls_key_pem="",
        http_tls_cert_pem="",
        http_static_headers="X-Key: other\nAuthorization: x ${TIDEWIRE_VAR_TOKEN}",
    )

    changes = {path: (old, new) for path, old, new in ConfigurationChange.objects.get().changes}
    assert changes["http.tls.key_pem"] == (MASK, "")
    assert changes["http.static_headers"] == (
        ["X-Key: ********", "Authorization: Bearer ${TIDEWIRE_VAR_TOKEN}"],
        ["X-Key: ********", "Authorization: x ${TIDEWIRE_VAR_TOKEN}"],
    )


def test_a_mask_without_something_behind_it_is_refused(operator, full):
    """A header that was renamed, say."""
    response = post(operator, change_url(full), http_static_headers=f"X-Kay: {MASK}")

    assert "no value is stored for X-Kay" in str(errors(response)["http_static_headers"])


def test_an_empty_field_deletes_a_secret(operator, full):
    """It is not the same as the mask."""
    response = post(operator, change_url(full), grpc_credentials_value="", http_static_headers="")

    assert response.status_code == 302, errors(response)
    full.refresh_from_db()
    assert (full.grpc_credentials_value, full.http_static_headers) == ("", {})


@pytest.mark.parametrize(
    ("edits", "field", "told"),
    [
        ({"name": "x"}, "name", "two or more"),
        ({"name": "default"}, "name", "default is the proxy of"),
        ({"endpoint": ""}, "endpoint", "required"),
        ({"endpoint": "grpc://a:1"}, "endpoint", "gRPC endpoints come with a later version"),
        ({"endpoint": "https://"}, "endpoint", "with a host"),
        ({"endpoint": "python:no.such.thing"}, "endpoint", "can't be imported"),
        ({"timeout": ""}, "timeout", "above 0"),
        ({"timeout": "5"}, "timeout", "needs a unit"),
        ({"http_static_headers": "no colon"}, "http_static_headers", "Name: value"),
        ({"http_static_headers": "A: 1\nA: 2"}, "http_static_headers", "A is there twice"),
        ({"http_static_headers": "a b: 1"}, "http_static_headers", "no name of a header"),
        (
            {"http_static_headers": "A: ${TIDEWIRE_VAR_MISSING}"},
            "http_static_headers",
            "TIDEWIRE_VAR_MISSING is not set",
        ),
        ({"http_status_to_code_transforms": "{"}, "http_status_to_code_transforms", "valid JSON"),
        ({"http_status_to_code_transforms": "{}"}, "http_status_to_code_transforms", "a list"),
        (
            {"http_status_to_code_transforms": '[{"status_code": 403}]'},
            "http_status_to_code_transforms",
            "[0]: expected to_error or to_disconnect",
        ),
        ({"http_tls_cert_pem": ""}, "http_tls_cert_pem", "belong together"),
        ({"http_tls_server_ca_pem": "/no/such.pem"}, "http_tls_server_ca_pem", "readable file"),
    ],
)
def test_an_error_stands_at_the_field_that_is_wrong(operator, full, edits, field, told):
    """And nothing is saved."""
    before, revision = Proxy.objects.values().get(), read_revision()

    response = post(operator, change_url(full), **edits)

    assert response.status_code == 200
    assert told in str(errors(response)[field]), errors(response)
    assert (Proxy.objects.values().get(), read_revision()) == (before, revision)


def test_a_certificate_that_is_none_is_refused(operator, full):
    """OpenSSL says so, which a server would otherwise find."""
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    response = post(operator, change_url(full), http_tls_server_ca_pem=pem)

    assert "can't be used" in str(errors(response))


def test_a_function_of_the_project_is_an_endpoint(operator, monkeypatch):
    """If there is one."""
    module = types.ModuleType("shop_realtime")
    module.prices = lambda request: None
    monkeypatch.setitem(sys.modules, "shop_realtime", module)

    response = post(operator, ADD, name="prices", endpoint="python:shop_realtime.prices")

    assert response.status_code == 302, errors(response)


def test_a_proxy_that_a_namespace_names_is_neither_deleted_nor_renamed(operator, full):
    """The page says which namespace; nothing is lost."""
    Namespace.objects.create(
        name="stocks", subscription_type="shared_poll", shared_poll_proxy_name="prices"
    )
    delete = reverse("admin:realtime_proxy_delete", args=[full.pk])

    for page in (
        operator.get(delete),
        operator.post(delete, {"post": "yes"}),
        operator.post(
            LIST, {"action": "delete_selected", "_selected_action": [full.pk], "post": "yes"}
        ),
    ):
        assert "namespace stocks names prices" in page.content.decode()
    renamed = post(operator, change_url(full), name="other")
    assert "there is no proxy &#x27;prices&#x27;" in renamed.content.decode()
    assert Proxy.objects.get().name == "prices"

    Namespace.objects.get(name="stocks").delete()
    assert operator.post(delete, {"post": "yes"}).status_code == 302
    assert not Proxy.objects.exists()


def test_adding_changing_and_deleting_are_remembered(operator):
    """With the options that matter."""
    post(operator, ADD, name="prices", endpoint=ENDPOINT)
    row = Proxy.objects.get()
    post(operator, change_url(row), timeout="2s", name="stocks")
    operator.post(reverse("admin:realtime_proxy_delete", args=[row.pk]), {"post": "yes"})

    deleted, changed, added = ConfigurationChange.objects.all()
    assert [each.kind for each in (added, changed, deleted)] == ["proxy"] * 3
    assert [each.action for each in (added, changed, deleted)] == ["added", "changed", "deleted"]
    assert added.changes == [["endpoint", "", ENDPOINT]]
    assert changed.changes == [["name", "prices", "stocks"], ["timeout", "1s", "2s"]]
    assert ["timeout", "2s", "1s"] in deleted.changes


def test_a_reader_sees_no_secret(reader, full):
    """But everything else, and can change nothing."""
    page = reader.get(change_url(full)).content.decode()

    for secret in ("s3cret", "gr3pc", full.http_tls_key_pem.splitlines()[1]):
        assert secret not in page
    for shown in ("X-Key: ********", ENDPOINT, "250ms", "Bearer ${TIDEWIRE_VAR_TOKEN}"):
        assert shown in page
    assert reader.post(change_url(full), {"name": "prices"}).status_code == 403


def test_the_list_says_who_uses_a_proxy(operator, full):
    """And how it is asked."""
    Namespace.objects.create(name="stocks", shared_poll_proxy_name="prices")
    Namespace.objects.create(name="chat", publish_proxy_name="prices")

    page = re.sub(r"<[^>]+>", " ", operator.get(LIST).content.decode())

    assert re.search(
        r"prices\s+https://app\.example\.com/poll\s+250ms\s+https\s+chat, stocks", page
    )


def test_a_namespace_offers_the_proxies_that_there_are(operator, full):
    """Rows, the handlers of that event, and what a row has although it is gone."""
    handlers.register_handler("shared_poll_refresh", "in.python", print)
    Namespace.objects.create(name="stocks", publish_proxy_name="gone")
    url = reverse("admin:realtime_namespace_change", args=[Namespace.objects.get(name="stocks").pk])

    form = operator.get(url).context["adminform"].form

    def offered(column):
        return [value for value, _ in form.fields[column].widget.choices]

    assert offered("subscribe_proxy_name") == ["default", "prices"]
    assert offered("publish_proxy_name") == ["default", "prices", "gone"]
    assert offered("shared_poll_proxy_name") == ["", "prices", "in.python"]
    refused = post(operator, url, cache_empty_proxy_name="in.python", publish_proxy_name="prices")
    assert "but a handler of shared_poll_refresh" in str(errors(refused)["cache_empty_proxy_name"])
    response = post(operator, url, shared_poll_proxy_name="prices", publish_proxy_name="default")
    assert response.status_code == 302, errors(response)
    assert Namespace.objects.get(name="stocks").shared_poll_proxy_name == "prices"


def test_a_namespace_names_no_proxy_that_is_not_there(operator, full):
    """In the words of a file's check, at the field."""
    response = post(
        operator, reverse("admin:realtime_namespace_add"), name="chat", subscribe_proxy_name="gone"
    )

    assert "there is no proxy" in str(errors(response)["subscribe_proxy_name"])
