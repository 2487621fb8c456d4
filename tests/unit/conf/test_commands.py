"""Commands about configuration and tokens: outputs, files, exit statuses."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import stat
import time
import tomllib
from pathlib import Path

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.management import CommandError, call_command

import manage
from realtime.auth.poll_signatures import PollSecrets, verify_batch
from realtime.conf.loader import load
from realtime.management.commands import checkconfig
from realtime.version import VERSION


SAMPLES = Path(__file__).parent / "samples"
SECRET = "0123456789abcdef0123456789abcdef"
# A public key as HMAC secret: the mistake that lets everybody sign.
PUBLIC_KEY = (
    ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
OTHER_SECRET = "fedcba9876543210fedcba9876543210"


def run(*args, **options):
    """Run a command and return what it wrote."""
    out = io.StringIO()
    call_command(*args, stdout=out, **options)
    return out.getvalue()


def failure(*args):
    """Run a command that fails and return its words."""
    with pytest.raises(CommandError) as caught:
        run(*args)
    assert caught.value.returncode == 1
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """Write a configuration and return the file's name."""

    def write_file(content, name="config.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return str(path)

    return write_file


@pytest.fixture
def config(write):
    """Name a file with a key for tokens."""
    return write({"client": {"token": {"hmac_secret_key": SECRET}}})


# --- checkconfig --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "config.toml"])
def test_a_valid_file_is_passed_in_silence(name):
    """Strictly, too."""
    assert run("checkconfig", "-c", str(SAMPLES / name)) == ""
    assert run("checkconfig", "--strict", "--config", str(SAMPLES / name)) == ""


def test_without_a_file_the_other_sources_are_checked(settings, monkeypatch):
    """Settings and environment, with the file that the environment names."""
    assert run("checkconfig") == ""
    monkeypatch.setenv("TIDEWIRE_CONFIG", str(SAMPLES / "config.json"))
    assert run("checkconfig", "-s") == ""

    settings.REALTIME = {"typo": 1}

    assert failure("checkconfig") == (
        "error validating config: typo (settings.REALTIME): there is no such option"
    )


def test_a_missing_file_fails(tmp_path, monkeypatch):
    """Named by the flag or by the environment; a start would go on."""
    path = str(tmp_path / "none.json")

    assert failure("checkconfig", "-c", path) == "config file not found"
    monkeypatch.setenv("TIDEWIRE_CONFIG", path)
    assert failure("checkconfig") == "config file not found"


def test_unknown_keys_fail_only_strictly(write):
    """Those of namespaces are listed with the others."""
    path = write(
        {
            "foo": 1,
            "client": {"zzz": {"x": 1}},
            "channel": {"namespaces": [{"name": "chat", "typo": 1}]},
        }
    )

    assert run("checkconfig", "-c", path) == ""
    assert failure("checkconfig", "-s", "-c", path) == (
        "unknown keys in config: foo, client.zzz, channel.namespaces[chat].typo"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"client": {"ping_interval": 25}}, "client.ping_interval (file {path}): a duration needs"),
        ({"client": {"pong_timeout": "25s"}}, "client.pong_timeout (file {path}): must be less"),
        ("{", "file {path}: can't be parsed: Expecting property name"),
        (
            {"channel": {"namespaces": [{"name": "chat", "history_size": 1}]}},
            "channel.namespaces[chat].",
        ),
        ({"channel": {"namespaces": [{"name": "x"}]}}, "channel.namespaces[x].name: must be two"),
        ({"channel": {"without_namespace": {"presence": 5}}}, "channel.without_namespace.presence"),
        (
            {
                "client": {
                    "subscribe_to_user_personal_channel": {
                        "enabled": True,
                        "personal_channel_namespace": "p",
                    }
                },
                "channel": {"namespaces": []},
            },
            "client.subscribe_to_user_personal_channel.personal_channel_namespace",
        ),
    ],
)
def test_invalid_files_fail(write, content, text):
    """Values, rules, and the namespaces that a start would leave alone."""
    path = write(content)

    told = failure("checkconfig", "-c", path)

    assert told.startswith(f"error validating config: {text.replace('{path}', path)}")


# --- genconfig ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parse"),
    [
        ("c.json", json.loads),
        ("c.yaml", yaml.safe_load),
        ("c.yml", yaml.safe_load),
        ("c.toml", tomllib.loads),
    ],
)
def test_a_new_file_has_fresh_secrets(tmp_path, name, parse):
    """Readable by its owner only, valid, and another one each time."""
    path, second = tmp_path / name, tmp_path / f"second-{name}"

    assert run("genconfig", "-c", str(path)) == ""
    run("genconfig", "-c", str(second))

    content, other = parse(path.read_text()), parse(second.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # 64 random bytes in URL-safe base64 without padding.
    assert re.fullmatch(r"[\w-]{86}", content["client"]["token"]["hmac_secret_key"])
    assert content["client"]["allowed_origins"] == []
    assert content["admin"].keys() == {"enabled", "password", "secret"}
    assert content["admin"]["enabled"] is False
    for secret in (
        ("client", "token", "hmac_secret_key"),
        ("admin", "password"),
        ("admin", "secret"),
        ("http_api", "key"),
    ):
        first_value, other_value = content, other
        for key in secret:
            first_value, other_value = first_value[key], other_value[key]
        assert len(first_value) >= 22
        assert first_value != other_value
    assert run("checkconfig", "-s", "-c", str(path)) == ""


def test_a_file_that_is_there_is_left_alone(write):
    """Its secrets may be in use."""
    path = write("{}")

    assert failure("genconfig", "-c", path) == (f"error: output config file already exists: {path}")
    assert Path(path).read_text() == "{}"


def test_the_format_must_be_known(tmp_path):
    """And the folder be there."""
    text = "output config file must have one of supported extensions: json, toml, yaml, yml"

    assert failure("genconfig", "-c", str(tmp_path / "c.ini")) == f"error: {text}"
    path = str(tmp_path / "none" / "c.json")
    assert failure("genconfig", "-c", path) == f"error: {path}: No such file or directory"


# --- defaultconfig ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "yaml", "toml"])
def test_a_full_file_over_a_base_says_what_the_base_says(tmp_path, ending):
    """With every default written out, and valid."""
    base, path = str(SAMPLES / "config.json"), str(tmp_path / f"full.{ending}")

    assert run("defaultconfig", "-b", base, "-c", path) == ""

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert run("checkconfig", "-s", "-c", path) == ""
    loaded = load({}, {"TIDEWIRE_CONFIG": path})
    assert loaded.options == load({}, {"TIDEWIRE_CONFIG": base}).options


def test_a_dry_run_prints_and_writes_nothing(tmp_path, monkeypatch):
    """In the format of the file that it would be; the environment has no part in it."""
    monkeypatch.setenv("TIDEWIRE_NODE_NAME", "mine")
    path = tmp_path / "full.yaml"

    text = run("defaultconfig", "-d", "-c", str(path))

    content = yaml.safe_load(text)
    assert content["client"]["ping_interval"] == "25s"
    assert content["node"]["name"] == ""
    assert content["channel"]["namespaces"] == []
    assert not path.exists()


def test_full_files_overwrite_nothing(write):
    """Nor does a broken base leave a file behind."""
    path = write("{}")

    assert failure("defaultconfig", "-c", path) == "error: target file already exists"
    bad = write({"client": {"ping_interval": 25}}, "bad.json")
    new = str(Path(path).parent / "new.json")
    assert failure("defaultconfig", "-c", new, "-b", bad).startswith(
        f"error: client.ping_interval (file {bad}): a duration needs a unit"
    )
    assert not Path(new).exists()
    assert failure("defaultconfig", "-c", new, "-b", new) == f"error: file {new}: not found"


# --- defaultenv ---------------------------------------------------------------------------------


def test_all_variables():
    """Sorted, quoted, with defaults."""
    lines = run("defaultenv").splitlines()

    assert lines == sorted(lines)
    assert 'TIDEWIRE_CLIENT_PING_INTERVAL="25s"' in lines
    assert 'TIDEWIRE_ADMIN_ENABLED="false"' in lines
    assert 'TIDEWIRE_CLIENT_ALLOWED_ORIGINS=""' in lines


def test_variables_of_a_base(write):
    """All of them with its values, or those alone that it sets to something."""
    path = write(
        {"client": {"channel_limit": 5, "insecure": False, "ping_interval": "25s"}, "typo": 1}
    )

    assert 'TIDEWIRE_CLIENT_CHANNEL_LIMIT="5"' in run("defaultenv", "-b", path).splitlines()
    assert run("defaultenv", "-b", path, "--base-non-zero-only").splitlines() == [
        'TIDEWIRE_CLIENT_CHANNEL_LIMIT="5"',
        'TIDEWIRE_CLIENT_PING_INTERVAL="25s"',
    ]
    assert failure("defaultenv", "--base-non-zero-only") == (
        "error: --base-non-zero-only needs --base"
    )


# --- version ------------------------------------------------------------------------------------


def test_the_version():
    """Ours and Python's."""
    python = platform.python_version()

    assert run("version") == f"Tidewire v{VERSION} (Python version: {python})\n"


def test_manage_py_tells_our_version(monkeypatch, capsys):
    """Django takes the word for itself; ``--version`` is still its own."""
    monkeypatch.setattr("sys.argv", ["manage.py", "version"])
    # The test run is set up already, and setting up again would reset its logging.
    monkeypatch.setattr("django.setup", lambda: None)

    manage.main()

    assert capsys.readouterr().out.startswith(f"Tidewire v{VERSION} (Python version: ")


# --- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "title", "claims", "ttl"),
    [
        (["-u", "42"], 'user "42" with expiration TTL 168h0m0s', {"sub": "42"}, 604800),
        ([], "anonymous user with expiration TTL 168h0m0s", {}, 604800),
        (["-u", "42", "-t", "90"], 'user "42" with expiration TTL 1m30s', {"sub": "42"}, 90),
        (["-t", "-1"], "anonymous user without expiration", {}, None),
    ],
)
def test_connection_tokens(config, args, title, claims, ttl):
    """Two lines, and a token that holds what the title says."""
    first, token = run("gentoken", "-c", config, *args).splitlines()

    assert first == f"HMAC SHA-256 JWT for {title}:"
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    found = jwt.decode(token, SECRET, algorithms=["HS256"])
    issued = found.pop("iat")
    assert abs(issued - time.time()) < 60
    assert found.pop("exp", None) == (None if ttl is None else issued + ttl)
    assert found == claims


def test_subscription_tokens(config):
    """With the channel in the title and in the claims."""
    first, token = run("gensubtoken", "-c", config, "-u", "42", "-s", "ch").splitlines()

    assert first == (
        'HMAC SHA-256 JWT for user "42" and channel "ch" with expiration TTL 168h0m0s:'
    )
    found = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (found["sub"], found["channel"]) == ("42", "ch")


def test_quiet_tokens_are_alone(config):
    """Ready for a shell's variable."""
    token = run("gentoken", "-c", config, "-q")

    assert token == token.strip()
    assert token.count(".") == 2


def test_the_user_goes_where_the_configuration_wants_it(write):
    """Under ``user_id_claim``."""
    path = write({"client": {"token": {"hmac_secret_key": SECRET, "user_id_claim": "uid"}}})

    token = run("gentoken", "-c", path, "-u", "42", "-q")

    assert jwt.decode(token, SECRET, algorithms=["HS256"])["uid"] == "42"
    assert run("checktoken", token, "-c", path).startswith("valid token for user 42\n")


def test_subscription_tokens_have_keys_of_their_own_where_enabled(write):
    """Both for making and for checking."""
    client = {
        "token": {"hmac_secret_key": SECRET},
        "subscription_token": {"enabled": True, "hmac_secret_key": OTHER_SECRET},
    }
    path = write({"client": client})
    token = run("gensubtoken", "-c", path, "-s", "ch", "-q")

    assert jwt.decode(token, OTHER_SECRET, algorithms=["HS256"])["channel"] == "ch"
    assert run("checksubtoken", token, "-c", path).startswith(
        'valid subscription token for anonymous user and channel "ch"\n'
    )
    del client["subscription_token"]["hmac_secret_key"]
    assert failure("gensubtoken", "-c", write({"client": client}), "-s", "ch").startswith(
        "error: client.subscription_token.hmac_secret_key is not set"
    )


def test_tokens_that_can_not_be_made(config, write):
    """No key, no channel, no sensible TTL."""
    empty = write({}, "empty.json")

    assert failure("gentoken", "-c", empty).startswith(
        "error: client.token.hmac_secret_key is not set"
    )
    assert failure("gensubtoken", "-c", config) == "channel is required"
    for ttl in ("0", "-2"):
        assert failure("gentoken", "-c", config, "-t", ttl) == (
            "error: the TTL must be above 0, or -1 for no expiration"
        )
    pem = write({"client": {"token": {"hmac_secret_key": PUBLIC_KEY}}}, "p.json")
    assert failure("gentoken", "-c", pem).startswith("error: client.token.hmac_secret_key: ")


def test_a_short_secret_makes_tokens_without_noise(write):
    """System checks speak of it; ``-W error`` here would turn a warning into a failure."""
    path = write({"client": {"token": {"hmac_secret_key": "short"}}})

    token = run("gentoken", "-c", path, "-u", "42", "-q")

    assert run("checktoken", token, "-c", path).startswith("valid token for user 42\n")


def test_checking_shows_the_claims(config):
    """As they stand in the token."""
    token = jwt.encode({"sub": "42", "info": {"name": "é"}}, SECRET, algorithm="HS256")
    sub_token = jwt.encode({"sub": "42", "channel": "ch"}, SECRET, algorithm="HS256")

    assert run("checktoken", token, "-c", config) == (
        'valid token for user 42\npayload: {"sub":"42","info":{"name":"\\u00e9"}}\n'
    )
    assert run("checksubtoken", sub_token, "-c", config) == (
        'valid subscription token for user "42" and channel "ch"\n'
        'payload: {"sub":"42","channel":"ch"}\n'
    )


@pytest.mark.parametrize("command", ["checktoken", "checksubtoken"])
def test_tokens_that_would_be_refused(command, config, write):
    """Malformed, signed by others, expired, for something else."""
    signed_elsewhere = jwt.encode({"sub": "42", "channel": "ch"}, OTHER_SECRET, algorithm="HS256")
    expired = jwt.encode({"exp": 1, "channel": "ch"}, SECRET, algorithm="HS256")
    claims = {"channel": "ch"} if command == "checktoken" else {}
    for_the_other = jwt.encode(claims, SECRET, algorithm="HS256")

    for token in ("", "x", "a.b.c", signed_elsewhere, expired, for_the_other):
        assert failure(command, token, "-c", config).startswith("error: ")
    skipping = {"insecure_skip_token_signature_verify": True}
    path = write({"client": {**skipping, "token": {"hmac_secret_key": SECRET}}}, "skip.json")
    if command == "checksubtoken":
        assert run(command, signed_elsewhere, "-c", path).startswith("valid subscription token")


# --- on the command line ------------------------------------------------------------------------


def test_a_failure_is_told_in_its_own_words(tmp_path, capsys):
    """On standard error, without Django's class name, with exit status 1."""
    with pytest.raises(SystemExit) as caught:
        checkconfig.Command().run_from_argv(
            ["manage.py", "checkconfig", "-c", str(tmp_path / "none.json"), "--no-color"]
        )

    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "config file not found\n")


def test_a_broken_configuration_does_not_stop_them(settings, capsys, tmp_path):
    """They are there to find out; a system check would come before their own words."""
    settings.REALTIME = {"typo": 1}

    with pytest.raises(SystemExit):
        checkconfig.Command().run_from_argv(["manage.py", "checkconfig", "--no-color"])

    assert capsys.readouterr().err == (
        "error validating config: typo (settings.REALTIME): there is no such option\n"
    )
    run("genconfig", "-c", str(tmp_path / "c.json"))


def test_a_sample_signature_is_good(write):
    """For the keys in their order; the rest is refused as for tokens."""
    config = write({"shared_poll": {"hmac_secret_key": "s3cret"}})

    title, signature = run(
        "gensharedpoll", "-c", config, "-u", "42", "-s", "p:a", "b", "a"
    ).splitlines()
    forever = run("gensharedpoll", "-c", config, "-s", "p:a", "-t=-1", "-q", "k")

    assert title.startswith("signature of the keys b, a for")
    facts = {"channel": "p:a", "now": time.time()}
    secrets = PollSecrets("s3cret")
    assert verify_batch(signature, secrets, user="42", keys=["b", "a"], **facts) > time.time()
    assert verify_batch(forever, secrets, user="", keys=["k"], **facts) == 0
    assert failure("gensharedpoll", "-c", config, "k") == "channel is required"
    assert "hmac_secret_key" in failure("gensharedpoll", "-c", write({}), "-s", "p:a", "k")
