"""Rows become one immutable configuration, or none."""

from __future__ import annotations

import hashlib
import json
import time

import msgspec
import pytest
from django.core import serializers
from django.db import IntegrityError, models, transaction

from realtime.conf import schema
from realtime.conf.options import (
    ChannelGlobalOptions,
    ClientOptions,
    PersonalChannelOptions,
    ProcessOptions,
    ProxyOptions,
)
from realtime.conf.proxy_rows import COLUMNS, LEAVES, options_of_row
from realtime.conf.snapshot import configuration_changed, load_configuration, read_revision
from realtime.models import (
    OPTION_COLUMNS,
    ApiKey,
    ConfigurationRevision,
    Namespace,
    Proxy,
)
from realtime.namespaces.options import ChannelOptions
from realtime.protocol.errors import ConfigError


pytestmark = pytest.mark.django_db
OPTIONS = ProcessOptions()


@pytest.fixture
def announced():
    """The revisions that ``configuration_changed`` has told, in order."""
    heard: list[int] = []

    def hear(sender, revision, **_):
        heard.append(revision)

    configuration_changed.connect(hear)
    yield heard
    configuration_changed.disconnect(hear)


def test_a_new_database_allows_nothing():
    """The migration makes the row without a namespace, with every option at its default."""
    configuration = load_configuration(OPTIONS)

    assert configuration.table.without_namespace == ChannelOptions()
    assert dict(configuration.table.namespaces) == {}
    assert dict(configuration.api_keys) == {}


def test_every_option_has_a_column():
    """No option of the server is missing in the rows, and no column is without an option."""
    names = {field.name for field in Namespace._meta.get_fields()}

    assert names - {"id", "name"} == set(OPTION_COLUMNS.values())


def test_default_columns_are_default_options():
    """A row that nobody edited is ``ChannelOptions()``."""
    assert Namespace(name="chat").to_options() == ChannelOptions()


def _other(value):
    """A value of the same type that is not the default."""
    if isinstance(value, bool):
        return True
    if isinstance(value, tuple):
        return ("fossil",)
    return value + 7 if isinstance(value, int | float) else f"{value}x"


@pytest.mark.parametrize("path", OPTION_COLUMNS)
def test_a_column_becomes_its_option(path):
    """What a column holds arrives at the option of its path, and nowhere else."""
    *groups, name = path.split(".")
    defaults = [ChannelOptions()]
    for group in groups:
        defaults.append(getattr(defaults[-1], group))
    value = _other(getattr(defaults[-1], name))
    row = Namespace(name="chat")
    setattr(row, OPTION_COLUMNS[path], list(value) if isinstance(value, tuple) else value)

    options = row.to_options()

    expected = value
    for part, holder in zip(reversed([*groups, name]), reversed(defaults), strict=True):
        expected = msgspec.structs.replace(holder, **{part: expected})
    assert options == expected


def test_namespaces_and_rules_form_the_table():
    """The table has the rows, the rules of the process options and the revision."""
    Namespace.objects.create(name="chat", history_size=10, history_ttl=60, presence=True)
    options = ProcessOptions(channel=ChannelGlobalOptions(namespace_boundary="/"))

    configuration = load_configuration(options)

    channel = configuration.table.resolve("chat/lobby")
    assert channel is not None
    assert channel.options.presence
    assert channel.has_history
    assert configuration.revision == configuration.table.revision == read_revision()


# --- proxies ------------------------------------------------------------------------------------


def test_every_option_of_a_proxy_has_a_column():
    """No option is missing in the rows, and no column is without an option."""
    names = {field.name for field in Proxy._meta.get_fields()}

    assert names - {"id", "name"} == set(COLUMNS.values())
    options = options_of_row(Proxy(name="prices"))
    assert options == ProxyOptions()


OTHERS = {
    "duration": 2.5,
    "strings": ["X-One", "X-Two"],
    "string_map": {"X-Key": "v"},
    "bool": True,
    "str": "other",
    "pem": "-----BEGIN X-----",
    "objects": [{"status_code": 403, "to_error": {"code": 403}}],
}


@pytest.mark.parametrize("path", COLUMNS)
def test_a_column_of_a_proxy_becomes_its_option(path):
    """What a column holds arrives at the option of its path, and nowhere else."""
    row = Proxy(name="prices")
    setattr(row, COLUMNS[path], OTHERS[LEAVES[path].kind])

    options = options_of_row(row)

    different = [
        each for each in LEAVES if schema.read(options, each) != schema.read(ProxyOptions(), each)
    ]
    assert different == [path]


def test_proxies_are_part_of_the_configuration(monkeypatch, announced):
    """References to the environment are filled in by the server; saving a row raises the revision."""
    monkeypatch.setenv("TIDEWIRE_VAR_TOKEN", "s3cret")
    before = read_revision()
    Proxy.objects.create(
        name="prices",
        endpoint="http://127.0.0.1/",
        timeout=0.5,
        http_static_headers={"Authorization": "Bearer ${TIDEWIRE_VAR_TOKEN}"},
    )

    configuration = load_configuration(OPTIONS)

    assert configuration.revision == before + 1
    proxy = configuration.proxies["prices"]
    assert (proxy.endpoint, proxy.timeout) == ("http://127.0.0.1/", 0.5)
    assert proxy.http.static_headers == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(configuration)


def test_pem_of_a_proxy_may_be_a_file(tmp_path):
    """Where its section is on; else the file need not be there yet."""
    pem = "-----BEGIN CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(pem)
    row = Proxy(name="prices", http_tls_server_ca_pem=str(tmp_path / "ca.pem"))
    assert options_of_row(row).http.tls.server_ca_pem == row.http_tls_server_ca_pem

    row.http_tls_enabled = True
    assert options_of_row(row).http.tls.server_ca_pem == pem

    row.http_tls_server_ca_pem = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"proxies\[prices\]\.http\.tls\.server_ca_pem"):
        options_of_row(row)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"endpoint": "grpc://a:1"}, r"proxies\[prices\]\.endpoint: gRPC"),
        ({"timeout": 0}, r"proxies\[prices\]\.timeout: expected"),
        (
            {"http_static_headers": {"A": "${TIDEWIRE_VAR_MISSING}"}},
            "TIDEWIRE_VAR_MISSING is not set",
        ),
        ({"http_static_headers": ["A"]}, r"proxies\[prices\]\.http\.static_headers"),
        ({"http_headers": "A"}, r"proxies\[prices\]\.http_headers"),
    ],
)
def test_a_proxy_that_is_wrong_never_becomes_a_configuration(values, told):
    """The node keeps what it has."""
    Proxy.objects.create(**{"name": "prices", "endpoint": "http://127.0.0.1/", **values})

    with pytest.raises(ConfigError, match=told):
        load_configuration(OPTIONS)


def test_a_proxy_that_a_namespace_names_is_not_deleted():
    """Neither alone nor with others, for whatever event it is named."""
    proxy = Proxy.objects.create(name="prices", endpoint="http://127.0.0.1/")
    other = Proxy.objects.create(name="other", endpoint="http://127.0.0.1/")
    namespace = Namespace.objects.create(name="chat", map_publish_proxy_name="prices")

    with pytest.raises(models.ProtectedError):
        proxy.delete()
    with pytest.raises(models.ProtectedError):
        Proxy.objects.all().delete()
    assert Proxy.objects.count() == 2

    other.delete()
    namespace.delete()
    Proxy.objects.all().delete()
    assert not Proxy.objects.exists()


@pytest.mark.parametrize("name", ["x", "default", "a b"])
def test_the_database_refuses_such_a_name_of_a_proxy(name):
    """Whoever writes it."""
    with pytest.raises(IntegrityError), transaction.atomic():
        Proxy.objects.create(name=name, endpoint="http://127.0.0.1/")


def test_a_shared_poll_needs_its_proxy_and_its_secret():
    """A row, a handler or the default one."""
    Namespace.objects.create(
        name="prices", subscription_type="shared_poll", shared_poll_proxy_name="prices"
    )
    secret = {"shared_poll.hmac_secret_key": "s"}
    options = schema.build(secret)
    with pytest.raises(ConfigError, match=r"needs shared_poll\.hmac_secret_key"):
        load_configuration(OPTIONS)
    with pytest.raises(ConfigError, match="there is no proxy 'prices'"):
        load_configuration(options)

    Proxy.objects.create(name="prices", endpoint="http://127.0.0.1/")
    assert "prices" in load_configuration(options).table.namespaces

    Namespace.objects.filter(name="prices").update(shared_poll_proxy_name="")
    with pytest.raises(ConfigError, match=r"shared_poll_refresh needs an endpoint"):
        load_configuration(options)
    own = schema.build(
        {**secret, "channel.proxy.shared_poll_refresh.endpoint": "http://127.0.0.1/"}
    )
    assert "prices" in load_configuration(own).table.namespaces


def test_keys_are_found_by_digest_unless_revoked():
    """The snapshot has neither the key nor revoked ones."""
    row, key = ApiKey.generate("billing", ["publish"])
    row.save()
    old, _ = ApiKey.generate("old", ["*"])
    old.save()
    old.revoke()

    keys = load_configuration(OPTIONS).api_keys

    assert set(keys) == {hashlib.sha256(key.encode()).digest()}
    found = keys[hashlib.sha256(key.encode()).digest()]
    assert (found.name, found.scopes) == ("billing", frozenset({"publish"}))
    assert key.startswith(found.prefix)
    assert found.may_call("publish")
    assert not found.may_call("broadcast")


def test_everything_covers_every_method():
    """The scope ``*`` needs no list."""
    row, key = ApiKey.generate("all", ["*"])
    row.save()

    keys = load_configuration(OPTIONS).api_keys

    assert keys[hashlib.sha256(key.encode()).digest()].may_call("anything")


def test_keys_are_random_and_not_stored():
    """A key has 32 random bytes, and no column has it."""
    row, key = ApiKey.generate("billing", ["publish"])
    _, other = ApiKey.generate("billing", ["publish"])
    row.save()

    stored = json.dumps(list(ApiKey.objects.values()), default=str)

    assert key != other
    assert len(key) == len("tw_") + 43
    assert key not in stored
    assert key[len(row.prefix) :] not in stored


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"history_size": 10}, "channel.namespaces[chat].history_ttl"),
        ({"channel_regex": "(a"}, "channel.namespaces[chat].channel_regex"),
        ({"allowed_delta_types": 5}, "allowed_delta_types"),
        ({"allowed_delta_types": "fossil"}, "allowed_delta_types"),
        ({"history_ttl": float("inf"), "history_size": 1}, "history_ttl"),
        ({"map_mode": "nonsense"}, "map.mode"),
    ],
)
def test_a_row_that_is_not_valid_never_becomes_a_table(columns, told):
    """The error has the path, and there is no configuration."""
    Namespace.objects.create(name="chat")
    Namespace.objects.filter(name="chat").update(**columns)

    with pytest.raises(ConfigError) as raised:
        load_configuration(OPTIONS)

    assert told in str(raised.value)


def test_what_process_options_refer_to_must_exist():
    """A personal channel's namespace is part of the whole configuration."""
    personal = PersonalChannelOptions(enabled=True, personal_channel_namespace="mine")
    options = ProcessOptions(client=ClientOptions(subscribe_to_user_personal_channel=personal))

    with pytest.raises(ConfigError, match="personal_channel_namespace"):
        load_configuration(options)

    Namespace.objects.create(name="mine")
    assert load_configuration(options).table.resolve("mine:#7") is not None


def test_warnings_are_no_reason_to_refuse():
    """A questionable configuration is one all the same."""
    Namespace.objects.create(name="chat", force_push_join_leave=True)

    assert load_configuration(OPTIONS).table.resolve("chat:x") is not None


def test_a_broken_key_row_is_refused():
    """Scopes that are no list of names would otherwise be read letter by letter."""
    row, _ = ApiKey.generate("billing", [])
    row.save()
    ApiKey.objects.update(scopes="publish")

    with pytest.raises(ConfigError, match="billing"):
        load_configuration(OPTIONS)


# --- the revision -------------------------------------------------------------------------------


def _loaddata(row):
    text = serializers.serialize("json", [row])
    for loaded in serializers.deserialize("json", text):
        loaded.save()


WRITES = {
    "save": lambda row: row.save(),
    "create": lambda _: Namespace.objects.create(name="two"),
    "delete": lambda row: row.delete(),
    "update": lambda _: Namespace.objects.filter(name="chat").update(presence=True),
    "delete a queryset": lambda _: Namespace.objects.filter(name="chat").delete(),
    "bulk_create": lambda _: Namespace.objects.bulk_create([Namespace(name="two")]),
    "bulk_update": lambda row: Namespace.objects.bulk_update([row], ["presence"]),
    "get_or_create": lambda _: Namespace.objects.get_or_create(name="two"),
    "update_or_create": lambda _: Namespace.objects.update_or_create(name="chat"),
    "loaddata": _loaddata,
    "a key": lambda _: ApiKey.generate("billing", [])[0].save(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_every_write_raises_the_revision_and_announces_it(
    write, announced, django_capture_on_commit_callbacks
):
    """Whatever way a row is written, the number rises and is told after the commit, not before."""
    row = Namespace.objects.create(name="chat")
    before = read_revision()

    with django_capture_on_commit_callbacks(execute=True):
        write(row)
        assert announced == []

    assert read_revision() > before
    assert announced[-1] == read_revision()


def test_writes_that_hit_nothing_raise_nothing():
    """Polling nodes don't reload for nothing."""
    before = read_revision()

    Namespace.objects.filter(name="nobody").update(presence=True)
    Namespace.objects.filter(name="nobody").delete()
    Namespace.objects.bulk_create([])

    assert read_revision() == before


@pytest.mark.django_db(transaction=True)
def test_a_write_that_is_rolled_back_raises_nothing(announced):
    """Number and rows are one transaction."""
    before = read_revision()

    with transaction.atomic():
        Namespace.objects.create(name="chat")
        transaction.set_rollback(True)

    assert read_revision() == before
    assert announced == []


@pytest.mark.django_db(transaction=True)
def test_a_listener_that_fails_does_not_fail_the_save():
    """The row is committed when listeners hear of it."""

    def fail(**_):
        raise RuntimeError

    configuration_changed.connect(fail)
    try:
        Namespace.objects.create(name="chat")
    finally:
        configuration_changed.disconnect(fail)

    assert Namespace.objects.filter(name="chat").exists()


def test_a_lost_revision_row_comes_back():
    """Somebody emptied the table by hand."""
    ConfigurationRevision.objects.all().delete()
    assert read_revision() == 0

    Namespace.objects.create(name="chat")

    assert read_revision() == 1


def test_reading_the_revision_is_one_query(django_assert_num_queries):
    """Each node does it once a second."""
    with django_assert_num_queries(1):
        read_revision()


def test_loading_takes_four_queries(django_assert_num_queries):
    """Revision, namespaces, proxies and keys, however many there are."""
    Namespace.objects.bulk_create(Namespace(name=f"ns{n}") for n in range(20))

    with django_assert_num_queries(4):
        load_configuration(OPTIONS)


def test_a_hundred_namespaces_load_quickly():
    """A reload is a matter of milliseconds, measured with a wide margin."""
    Namespace.objects.bulk_create(Namespace(name=f"ns{n}", presence=True) for n in range(100))
    load_configuration(OPTIONS)

    started = time.process_time()
    load_configuration(OPTIONS)

    assert time.process_time() - started < 0.25


# --- what the database itself refuses -----------------------------------------------------------


def test_the_row_without_namespace_cannot_be_deleted():
    """Neither alone nor among others, and then nothing is deleted."""
    Namespace.objects.create(name="chat")

    with pytest.raises(models.ProtectedError):
        Namespace.objects.get(name="").delete()
    with pytest.raises(models.ProtectedError):
        Namespace.objects.all().delete()

    assert Namespace.objects.count() == 2


@pytest.mark.parametrize("name", ["a", "a b", "é é", "", "a:b"])
def test_the_database_refuses_bad_and_double_names(name):
    """Even a bulk write can't put them in ("" is there already)."""
    with pytest.raises(IntegrityError), transaction.atomic():
        Namespace.objects.bulk_create([Namespace(name=name)])
