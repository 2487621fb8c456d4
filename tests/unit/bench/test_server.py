"""What may be measured, what a scratch server runs with, what of a process is read."""

from __future__ import annotations

import os
import socket
import time

import pytest

from realtime.bench import BenchError
from realtime.bench.meter import Meter, listening_pids
from realtime.bench.server import parse_target, scratch_configuration
from realtime.bench.worker import source_address
from realtime.conf import loader
from realtime.conf.rendering import document


def test_a_url_is_read():
    """Host, port and path; the scheme's port if none is named."""
    plain = parse_target("http://127.0.0.1:8000/rt/", allow_remote=False)
    secure = parse_target("https://127.0.0.1", allow_remote=False)

    assert (plain.address, plain.port, plain.path, plain.is_tls) == (
        "127.0.0.1",
        8000,
        "/rt",
        False,
    )
    assert plain.url == "http://127.0.0.1:8000/rt"
    assert (secure.port, secure.is_tls) == (443, True)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://127.0.0.1", "expected http://host:port"),
        ("127.0.0.1:8000", "expected http://host:port"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://127.0.0.1:8000/?a=b", "may have a path and nothing"),
        ("http://0.0.0.0:8000", "is not this machine's loopback"),
        ("http://192.0.2.1:8000", "is not this machine's loopback"),
    ],
)
def test_a_url_that_will_not_do_is_refused(url, text):
    """Another machine's as long as nobody says that it is meant."""
    with pytest.raises(BenchError, match=text):
        parse_target(url, allow_remote=False)


def test_a_password_in_a_url_is_not_shown():
    """Nor used."""
    with pytest.raises(BenchError) as caught:
        parse_target("http://user:hunter2@127.0.0.1:8000", allow_remote=False)

    assert "hunter2" not in str(caught.value)


def test_another_machine_may_be_measured_on_request():
    """By whoever says so."""
    assert parse_target("http://192.0.2.1:8000", allow_remote=True).address == "192.0.2.1"


def configuration(**sections: object) -> dict[str, object]:
    """Make a scratch server's configuration of a project's that has these sections."""
    loaded = loader.load({}, {})
    return scratch_configuration({**document(loaded.options), **sections}, "key", "secret")


def test_a_scratch_server_has_its_own_secrets_and_reads_its_configuration():
    """The file that is written is one that a server starts with."""
    config = configuration()

    options = loader.load(config, {}).options
    assert options.http_api.key == "key"
    assert options.client.token.hmac_secret_key == "secret"
    assert options.client.user_connection_limit == 0


def test_a_projects_proxies_and_limits_are_not_taken_over():
    """A benchmark's load is not for the services that a project's server asks."""
    config = configuration(
        client={"proxy": {"connect": {"enabled": True, "endpoint": "http://app.example"}}},
        http_server={"tls": {"enabled": True}},
    )

    assert "proxy" not in config["client"]
    assert "http_server" not in config


def test_a_shared_engine_is_used_under_a_prefix_of_its_own():
    """Production's keys, channels and nodes are not met; the address stays. Sections not in use stay as they are."""
    full = document(loader.load({}, {}).options)
    engine = {**full["engine"], "type": "redis"}

    first, second = configuration(engine=engine), configuration(engine=engine)

    assert first["engine"]["redis"]["address"] == full["engine"]["redis"]["address"]
    prefixes = {each["engine"]["redis"]["prefix"] for each in (first, second)}
    assert len(prefixes) == 2
    assert all(prefix.startswith("tidewire-bench-") for prefix in prefixes)
    assert first["broker"] == full["broker"]
    assert engine["redis"]["prefix"] == full["engine"]["redis"]["prefix"]


def test_cpu_time_and_memory_of_a_process_are_read():
    """Here of this one, which burns some."""
    meter = Meter([os.getpid()])
    before = meter.cpu_seconds()

    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass

    assert meter.cpu_seconds() - before >= 0.03
    assert meter.memory_bytes() > 1_000_000
    assert os.getpid() in meter.pids


def test_nothing_to_read_is_not_zero():
    """Without processes there is no figure; a process that is gone is an error."""
    assert Meter([]).cpu_seconds() is None
    assert Meter([]).memory_bytes() is None
    with pytest.raises(BenchError, match="can't be measured"):
        Meter([2**22 + 1]).cpu_seconds()


def test_who_listens_on_a_port_is_found():
    """This process does; nobody does afterwards."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]

        assert listening_pids(port) == [os.getpid()]
    assert listening_pids(port) == []


@pytest.mark.parametrize(
    ("number", "clients", "address", "source"),
    [
        (0, 20_000, "127.0.0.1", None),
        (0, 50_000, "127.0.0.1", ("127.0.0.2", 0)),
        (19_999, 50_000, "127.0.0.1", ("127.0.0.2", 0)),
        (20_000, 50_000, "127.0.0.1", ("127.0.0.3", 0)),
        (49_999, 50_000, "192.0.2.1", None),
    ],
)
def test_many_sockets_connect_from_several_addresses(monkeypatch, number, clients, address, source):
    """An address has too few ports for them."""
    monkeypatch.setattr("sys.platform", "linux")

    assert source_address(number, clients, address) == source
