"""``importconfig`` and ``exportconfig``: there and back, all or nothing."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.conf.loader import read_file
from realtime.conf.snapshot import read_revision
from realtime.conf.transfer import apply_settings, export_document, settings_of
from realtime.models import OPTION_COLUMNS, ConfigurationChange, Namespace, Proxy, SecondsField


pytestmark = pytest.mark.django_db
FULL = {
    "channel": {
        "without_namespace": {"presence": True},
        "namespaces": [
            {
                "name": "chat",
                "presence": True,
                "history_size": 10,
                "history_ttl": "1h30m",
                "force_recovery": True,
                "force_recovery_mode": "cache",
                "auto_cache_recover": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
                "channel_regex": '^"[\\\\a-zé]+\u007f$',
            },
            {
                "name": "board",
                "subscription_type": "map",
                "map": {"mode": "ephemeral", "key_ttl": "30s", "publish_proxy_name": "boards"},
                "shared_poll": {"channel_shutdown_delay": "-1s"},
            },
        ],
    },
    "proxies": [
        {
            "name": "boards",
            "endpoint": "https://app.example.com/boards?a=1%202",
            "timeout": "1.5s",
            "http_headers": ["Cookie"],
            "http": {
                "tls": {"enabled": True, "server_ca_pem": "/etc/ca.pem", "server_name": "app"},
                "static_headers": [
                    {"key": "X-Key", "value": 's3cret "é"'},
                    {"key": "Authorization", "value": "Bearer ${TIDEWIRE_VAR_NOT_SET_HERE}"},
                ],
                "status_to_code_transforms": [
                    {
                        "status_code": 403,
                        "to_error": {"code": 403, "message": "no", "temporary": False},
                    },
                    {"status_code": 404, "to_disconnect": {"code": 4504, "reason": "gone"}},
                ],
            },
        },
        {"name": "local", "endpoint": "python:shop.realtime.prices"},
    ],
}


@dataclass
class Output:
    """What a command wrote."""

    out: str
    err: str


def run(command, *args, **options):
    out, err = io.StringIO(), io.StringIO()
    call_command(command, *args, stdout=out, stderr=err, **options)
    return Output(out.getvalue(), err.getvalue())


@pytest.fixture
def write(tmp_path):
    """Write a document as JSON and return the file's name."""

    def write_file(document, name="config.json"):
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    return write_file


def rows():
    return {row["name"]: row for row in Namespace.objects.values()}


def test_a_file_becomes_rows(write):
    """Nested objects become columns, durations seconds."""
    output = run("importconfig", write(FULL))

    assert "4 added, 1 changed, 0 deleted, 0 unchanged" in output.out
    chat, board = rows()["chat"], rows()["board"]
    assert (chat["history_ttl"], chat["allowed_delta_types"]) == (5400.0, ["fossil"])
    assert (board["map_mode"], board["map_key_ttl"]) == ("ephemeral", 30.0)
    assert board["map_publish_proxy_name"] == "boards"
    boards = Proxy.objects.get(name="boards")
    assert (boards.timeout, boards.http_headers) == (1.5, ["Cookie"])
    # Headers keep their case, and what refers to the environment is filled in by each server.
    assert boards.http_static_headers == {
        "X-Key": 's3cret "é"',
        "Authorization": "Bearer ${TIDEWIRE_VAR_NOT_SET_HERE}",
    }
    assert boards.http_tls_server_ca_pem == "/etc/ca.pem"
    assert board["shared_poll_channel_shutdown_delay"] == -1.0
    assert rows()[""]["presence"]


def test_importing_again_changes_nothing(write):
    """No row is written, so no node reloads."""
    run("importconfig", write(FULL))
    before, revision = rows(), read_revision()

    output = run("importconfig", write(FULL))

    assert "0 added, 0 changed, 0 deleted, 5 unchanged" in output.out
    assert (rows(), read_revision()) == (before, revision)


def test_a_dry_run_shows_the_same_and_changes_nothing(write):
    """The diff is that of the real run."""
    Namespace.objects.create(name="old")
    before, revision = rows(), read_revision()

    tried = run("importconfig", write(FULL), dry_run=True, prune=True)

    assert (rows(), read_revision()) == (before, revision)
    assert not ConfigurationChange.objects.exists()
    done = run("importconfig", write(FULL), prune=True)
    assert tried.out.replace("; dry run, nothing was changed", "") == done.out
    for line in ("+ namespace chat", "    history_ttl: 1h30m0s", "- namespace old"):
        assert line in done.out
    assert "~ without_namespace\n    presence: false -> true" in done.out


def test_a_namespace_of_the_file_replaces_its_row_as_a_whole(write):
    """What the file leaves out is default afterwards."""
    Namespace.objects.create(name="chat", presence=True, join_leave=True)

    run(
        "importconfig",
        write({"channel": {"namespaces": [{"name": "chat", "presence": True}]}}),
    )

    assert settings_of(Namespace.objects.get(name="chat")) == {"presence": True}


def test_what_the_file_does_not_mention_stays(write):
    """Other namespaces without ``--prune``, and ``without_namespace`` where its key is missing."""
    Namespace.objects.create(name="old")
    Namespace.objects.filter(name="").update(presence=True)

    run("importconfig", write({"channel": {"namespaces": [{"name": "new"}]}}))

    assert set(rows()) == {"", "old", "new"}
    assert rows()[""]["presence"]


def test_pruning_deletes_what_the_file_does_not_have(write):
    """But never the row without a namespace."""
    Namespace.objects.create(name="old")

    run("importconfig", write({"channel": {"namespaces": [{"name": "new"}]}}), prune=True)

    assert set(rows()) == {"", "new"}


def test_pruning_by_a_file_about_something_else_is_refused(write):
    """A file without the key would delete everything."""
    Namespace.objects.create(name="old")

    with pytest.raises(CommandError, match="--prune needs"):
        run("importconfig", write({"client": {}}), prune=True)

    assert "old" in rows()


@pytest.mark.parametrize(
    ("namespaces", "told"),
    [
        ([{"name": "chat", "history_size": 10}], "channel.namespaces[chat].history_ttl"),
        ([{"name": "chat", "history_ttl": 5}], "channel.namespaces[chat].history_ttl"),
        ([{"name": "chat", "presence": "yes"}], "channel.namespaces[chat].presence: expected true"),
        ([{"name": "chat", "history_size": True}], "channel.namespaces[chat].history_size"),
        ([{"name": "chat", "history_size": 2**40}], "channel.namespaces[chat].history_size"),
        ([{"name": "chat", "history_size": 1.5}], "channel.namespaces[chat].history_size"),
        ([{"name": "chat", "channel_regex": "(a"}], "channel.namespaces[chat].channel_regex"),
        ([{"name": "chat", "channel_regex": "a" * 256}], "channel.namespaces[chat].channel_regex"),
        (
            [{"name": "chat", "allowed_delta_types": "fossil"}],
            "allowed_delta_types: expected a list",
        ),
        ([{"name": "chat", "allowed_delta_types": [1]}], "allowed_delta_types: expected a list"),
        ([{"name": "chat", "map": 5}], "channel.namespaces[chat].map: expected an object"),
        ([{"name": "chat", "map": {"key_ttl": "x"}}], "channel.namespaces[chat].map.key_ttl"),
        ([{"name": "chat"}, {"name": "chat"}], "channel.namespaces[chat].name: there is another"),
        ([{"name": "a b"}], "channel.namespaces[a b].name"),
        ([{"presence": True}], "channel.namespaces[0].name"),
        ([5], "channel.namespaces[0]: expected an object"),
        ({"chat": {}}, "channel.namespaces: expected a list"),
    ],
)
def test_an_error_names_its_path_and_nothing_is_imported(write, namespaces, told):
    """All or nothing, also where only one of several is wrong."""
    document = {
        "channel": {
            "namespaces": [{"name": "fine"}, *namespaces]
            if isinstance(namespaces, list)
            else namespaces
        }
    }
    told = told.replace("[0]", "[1]")

    with pytest.raises(CommandError) as raised:
        run("importconfig", write(document))

    assert told in str(raised.value)
    assert set(rows()) == {""}


@pytest.mark.parametrize("document", [{"channel": 5}, {"channel": {"without_namespace": [1]}}])
def test_a_file_of_another_form_is_refused(write, document):
    """With the path."""
    with pytest.raises(CommandError, match=r"channel.*expected an object"):
        run("importconfig", write(document))


@pytest.mark.parametrize("name", ["missing.json", "config.ini"])
def test_a_file_that_cannot_be_read_is_told(tmp_path, name):
    """Not as a traceback."""
    with pytest.raises(CommandError, match=name):
        run("importconfig", str(tmp_path / name))


def test_all_errors_of_a_file_are_told_at_once(write):
    """An operator mends a file in one go."""
    document = {"channel": {"namespaces": [{"name": "chat", "presence": 1, "history_ttl": "x"}]}}

    with pytest.raises(CommandError) as raised:
        run("importconfig", write(document))

    assert len(str(raised.value).splitlines()) == 2


def test_unknown_options_are_told_and_left_out(write):
    """As Centrifugo does: those of its commercial edition, and misspelt ones."""
    document = {"channel": {"namespaces": [{"name": "chat", "presense": True, "map": {"x": 1}}]}}

    output = run("importconfig", write(document))

    assert "channel.namespaces[chat].presense" in output.err
    assert "channel.namespaces[chat].map.x" in output.err
    assert "chat" in rows()


def test_warnings_are_told(write):
    """Those of the namespaces in the file."""
    Namespace.objects.create(name="other", force_push_join_leave=True)
    document = {"channel": {"namespaces": [{"name": "chat", "force_push_join_leave": True}]}}

    output = run("importconfig", write(document))

    assert "channel.namespaces[chat].force_push_join_leave" in output.err
    assert "other" not in output.err


def test_an_import_is_remembered_under_the_system_account(write, monkeypatch):
    """Like an edit in the admin."""
    monkeypatch.setenv("LOGNAME", "deployer")

    run("importconfig", write(FULL))

    record = ConfigurationChange.objects.get(row_name="chat")
    assert (record.actor, record.source, record.action) == ("deployer", "importconfig", "added")
    assert ["history_ttl", "0s", "1h30m0s"] in record.changes


# --- proxies ------------------------------------------------------------------------------------


def test_no_secret_of_a_proxy_is_shown_or_recorded(write):
    """Names of headers are, and that a value is another one now."""
    document = json.loads(json.dumps(FULL))
    first = run("importconfig", write(document))
    document["proxies"][0]["http"]["static_headers"][0]["value"] = "s3cret number two"

    second = run("importconfig", write(document))

    assert "X-Key: ********" in first.out
    assert "X-Key: ********" in second.out
    assert "(changed)" in second.out
    records = json.dumps(list(ConfigurationChange.objects.values_list("changes", flat=True)))
    assert "X-Key" in records
    assert "s3cret" not in first.out + second.out + records
    assert Proxy.objects.get(name="boards").http_static_headers["X-Key"] == "s3cret number two"


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ({"name": "x", "endpoint": "http://a/"}, r"proxies\[x\].name: must be two or more"),
        ({"name": "default", "endpoint": "http://a/"}, r"proxies\[default\].name: default is"),
        ({"name": "xx"}, r"proxies\[xx\].endpoint: is required"),
        ({"name": "xx", "endpoint": "grpc://a:1"}, r"proxies\[xx\].endpoint: gRPC .* later"),
        (
            {"name": "xx", "endpoint": "http://a/", "timeout": 5},
            r"needs a unit|duration.*proxies\[xx\].timeout",
        ),
        (
            {"name": "xx", "endpoint": "http://a/", "timeout": "0s"},
            r"proxies\[xx\].timeout: expected",
        ),
        ({"endpoint": "http://a/"}, r"proxies\[0\].name: expected a name"),
    ],
)
def test_a_proxy_that_is_wrong_is_refused_with_its_path(write, proxy, told):
    """And nothing of the file gets into the database."""
    document = {"channel": {"namespaces": [{"name": "new"}]}, "proxies": [proxy]}

    with pytest.raises(CommandError, match=told):
        run("importconfig", write(document))

    assert not Proxy.objects.exists()
    assert not Namespace.objects.filter(name="new").exists()


def test_a_proxy_that_a_namespace_names_is_not_pruned(write):
    """The namespace may be one that the file does not speak of."""
    run("importconfig", write(FULL))

    with pytest.raises(CommandError, match="there is no proxy 'boards'"):
        run("importconfig", write({"proxies": []}), prune=True)

    assert Proxy.objects.count() == 2
    output = run("importconfig", write({"channel": {"namespaces": []}, "proxies": []}), prune=True)
    assert "- proxy boards" in output.out
    assert not Proxy.objects.exists()


def test_pruning_leaves_alone_what_a_file_does_not_speak_of(write):
    """Namespaces by a file of proxies, and proxies by a file of namespaces."""
    run("importconfig", write(FULL))

    run(
        "importconfig",
        write({"channel": {"namespaces": FULL["channel"]["namespaces"]}}),
        prune=True,
    )
    run("importconfig", write({"proxies": FULL["proxies"]}), prune=True)

    assert (Proxy.objects.count(), Namespace.objects.count()) == (2, 3)


# --- export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml", "toml", "yml"])
def test_what_is_exported_imports_as_it_was(write, tmp_path, form):
    """In every format, into an empty database and over something else."""
    run("importconfig", write(FULL))
    before = {name: settings_of(row) for name, row in _named_rows()}
    target = tmp_path / f"export.{form}"

    run("exportconfig", str(target))
    Namespace.objects.exclude(name="").delete()
    Proxy.objects.all().delete()
    Proxy.objects.create(name="old", endpoint="http://127.0.0.1/")
    Namespace.objects.filter(name="").update(presence=False, join_leave=True)
    Namespace.objects.create(name="chat", join_leave=True)
    run("importconfig", str(target), prune=True)

    assert {name: settings_of(row) for name, row in _named_rows()} == before
    assert read_file(target) == export_document()
    assert export_document()["proxies"] == FULL["proxies"]


def _named_rows():
    return [(row.name, row) for row in Namespace.objects.all()]


def test_an_export_has_centrifugos_keys_and_no_defaults(write):
    """The text is a configuration file that Centrifugo reads."""
    run("importconfig", write(FULL))

    document = json.loads(run("exportconfig").out)

    assert document["channel"]["without_namespace"] == {"presence": True}
    board, chat = document["channel"]["namespaces"]
    assert board == {**FULL["channel"]["namespaces"][1]}
    assert chat == {**FULL["channel"]["namespaces"][0], "history_ttl": "1h30m0s"}
    assert document["proxies"] == FULL["proxies"]


def test_a_new_export_is_for_its_owner_only(tmp_path):
    """Headers of proxies may be secrets."""
    target = tmp_path / "export.json"

    run("exportconfig", str(target))

    assert target.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("form", ["json", "yaml", "toml"])
def test_an_empty_configuration_is_exported_as_such(tmp_path, form):
    """All keys are there, so that importing it resets everything."""
    target = tmp_path / f"export.{form}"

    run("exportconfig", str(target))

    assert read_file(target) == {
        "channel": {"without_namespace": {}, "namespaces": []},
        "proxies": [],
    }


def test_a_file_that_exists_is_not_overwritten_unasked(tmp_path):
    """Somebody's only copy, perhaps."""
    target = tmp_path / "config.json"
    target.write_text("precious")

    with pytest.raises(CommandError, match="--overwrite"):
        run("exportconfig", str(target))

    assert target.read_text() == "precious"
    run("exportconfig", str(target), overwrite=True)
    assert json.loads(target.read_text())


@pytest.mark.parametrize("name", ["config.ini", "missing/config.json"])
def test_a_target_that_does_not_do_is_told(tmp_path, name):
    """An unknown ending, a missing folder."""
    with pytest.raises(CommandError, match=name):
        run("exportconfig", str(tmp_path / name))


def _values(path):
    column = Namespace.column(OPTION_COLUMNS[path])
    if isinstance(column, SecondsField):
        return st.integers(0, 10**9).map(lambda ms: ms / 1000)
    kind = column.get_internal_type()
    if kind == "BooleanField":
        return st.booleans()
    if kind == "IntegerField":
        return st.integers(-(2**31) + 1, 2**31 - 1)
    texts = st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20
    )
    return st.lists(texts, max_size=3) if kind == "JSONField" else texts


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.fixed_dictionaries({}, optional={path: _values(path) for path in OPTION_COLUMNS}))
def test_settings_and_rows_are_the_same_thing(values):
    """Any row becomes settings and those the same row."""
    row = Namespace(name="chat")
    for path, value in values.items():
        setattr(row, OPTION_COLUMNS[path], value)
    other = Namespace(name="chat")

    apply_settings(other, settings_of(row))

    for column in OPTION_COLUMNS.values():
        assert getattr(other, column) == getattr(row, column)
