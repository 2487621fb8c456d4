"""Listening sockets, TLS and what the options say to the servers."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from realtime.conf.options import ProcessOptions, TLSOptions
from realtime.protocol.errors import ConfigError
from realtime.servers.connections import HTTPSettings
from realtime.servers.limits import (
    endpoint_names,
    frames_by_path,
    frames_settings,
    ignored_by_daphne,
    unsupported_options,
    websocket_paths,
)
from realtime.servers.production import address_of, behind_proxies, listen
from realtime.servers.tls import server_context
from tests.unit.servers.certificates import self_signed


def _close(sockets: list[socket.socket]) -> None:
    for opened in sockets:
        opened.close()


def test_an_address_gives_one_socket() -> None:
    """On a free port, where 0 is asked for."""
    sockets = listen("127.0.0.1", 0, is_shared=False)

    assert [address_of(opened).rpartition(":")[0] for opened in sockets] == ["127.0.0.1"]
    assert sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    _close(sockets)


def test_no_address_is_every_interface_on_one_port() -> None:
    """IPv4 first, IPv6 where there is any; clients keep plain IPv4 addresses."""
    sockets = listen("", 0, is_shared=True)

    assert sockets[0].family == socket.AF_INET
    assert len({opened.getsockname()[1] for opened in sockets}) == 1
    assert all(opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for opened in sockets)
    _close(sockets)


def test_a_port_in_use_is_an_error() -> None:
    """Unless both share it."""
    sockets = listen("127.0.0.1", 0, is_shared=False)
    port = sockets[0].getsockname()[1]

    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", port, is_shared=True)
    _close(sockets)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    """As in a URL."""
    try:
        sockets = listen("::1", 0, is_shared=False)
    except OSError:
        pytest.skip("no IPv6 here")

    assert address_of(sockets[0]).startswith("[::1]:")
    _close(sockets)


def _options(**sections: dict[str, object]) -> ProcessOptions:
    return msgspec.convert(sections, ProcessOptions)


def test_the_options_become_limits() -> None:
    """Zero for the decompressed limit is ten times the other."""
    settings = frames_settings(
        _options(websocket={"compression": True, "message_size_limit": 7, "compression_level": 3})
    )

    assert settings.has_compression
    assert (settings.max_message_bytes, settings.decompressed_limit) == (7, 70)
    assert settings.compression_level == 3


def test_the_paths_of_websockets_follow_the_options() -> None:
    """Prefixes and switches."""
    assert websocket_paths(ProcessOptions()) == ("/connection/websocket",)
    assert websocket_paths(_options(websocket={"disabled": True})) == ()
    assert websocket_paths(_options(uni_websocket={"enabled": True, "handler_prefix": "/u"})) == (
        "/connection/websocket",
        "/u",
    )


def test_the_unidirectional_websocket_has_limits_of_its_own() -> None:
    """Under its path, while it is on."""
    on = _options(uni_websocket={"enabled": True, "handler_prefix": "/u", "message_size_limit": 7})

    assert frames_by_path(ProcessOptions()) == {}
    assert {path: each.max_message_bytes for path, each in frames_by_path(on).items()} == {"/u": 7}


def test_the_start_up_line_names_what_is_served() -> None:
    """In the reference's order."""
    assert endpoint_names(ProcessOptions()) == ["websocket", "api", "admin"]
    named = endpoint_names(_options(sse={"enabled": True}, health={"enabled": True}))
    assert named == ["websocket", "sse", "emulation", "api", "admin", "health"]
    # Set, but not built yet: the log names it as an error, and this line must not promise it.
    assert endpoint_names(_options(graphite={"enabled": True})) == ["websocket", "api", "admin"]


@pytest.mark.parametrize(
    "changed",
    [
        {"tls_autocert": {"enabled": True}},
        {"http3": {"enabled": True}},
        {"h2c_external": True},
        {"internal_tls": {"enabled": True}},
    ],
)
def test_what_the_server_can_not_do_is_named(changed: dict[str, object]) -> None:
    """It must not start as if it did."""
    assert unsupported_options(ProcessOptions()) == []
    problems = unsupported_options(_options(http_server=changed))
    assert len(problems) == 1
    assert next(iter(changed)) in problems[0]


HTTP3 = {"http3": {"enabled": True}, "tls": {"enabled": True}}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"webtransport": {"enabled": True}}, "carried by HTTP/3"),
        ({"http_server": {**HTTP3, "tls": {}}}, "no QUIC without TLS"),
        (
            {"http_server": {**HTTP3, "tls": {"enabled": True, "client_ca_pem": "x"}}},
            "client_ca_pem",
        ),
        ({"http_server": HTTP3, "workers": 2}, "set workers to 1, it is 2"),
    ],
)
def test_what_is_in_the_way_of_http3_is_named(changed: dict[str, object], says: str) -> None:
    """One sentence for each."""
    assert unsupported_options(_options(http_server=HTTP3)) == []

    (problem,) = unsupported_options(msgspec.convert(changed, ProcessOptions))

    assert says in problem


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/3 is an extra."""
    monkeypatch.setattr("realtime.servers.limits.find_spec", lambda _: None)

    (problem,) = unsupported_options(_options(http_server=HTTP3))

    assert "aioquic" in problem
    assert "requirements-http3.txt" in problem


def test_tls_is_made_of_pem_texts() -> None:
    """TLS 1.2 at least; client certificates only with an authority for them."""
    certificate, key = self_signed()

    plain = server_context(TLSOptions(enabled=True, cert_pem=certificate, key_pem=key))
    mutual = server_context(
        TLSOptions(enabled=True, cert_pem=certificate, key_pem=key, client_ca_pem=certificate)
    )

    assert plain.minimum_version == ssl.TLSVersion.TLSv1_2
    assert plain.verify_mode == ssl.CERT_NONE
    assert mutual.verify_mode == ssl.CERT_REQUIRED


def test_wrong_tls_options_are_the_operators_error() -> None:
    """And the error shows no key."""
    certificate, key = self_signed()
    with pytest.raises(ConfigError, match="cert_pem"):
        server_context(TLSOptions(enabled=True, key_pem=key))
    with pytest.raises(ConfigError) as raised:
        server_context(TLSOptions(enabled=True, cert_pem=certificate, key_pem="secret stuff"))
    assert "secret" not in str(raised.value)


def test_an_encrypted_key_is_an_error_and_no_question() -> None:
    """Nobody sits at the terminal of a service, and a reload must not wait for somebody."""
    certificate, key = self_signed()
    encrypted = (
        load_pem_private_key(key.encode(), None)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
        .decode()
    )

    with pytest.raises(ConfigError, match=r"internal_tls: certificate or key can't be used"):
        server_context(
            TLSOptions(enabled=True, cert_pem=certificate, key_pem=encrypted),
            "http_server.internal_tls",
        )


def test_a_server_may_have_as_many_sockets_as_the_machine_allows() -> None:
    """The soft limit, 1,024 by habit, is raised to the hard one."""
    script = (
        "import resource\n"
        "from realtime.servers.production import allow_open_files\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "print(allow_open_files() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert run.stdout == "True\n"


def test_the_lanes_log_believes_the_proxies_that_uvicorn_believes() -> None:
    """And nobody else."""
    settings = behind_proxies(HTTPSettings(), "127.0.0.1")

    assert "127.0.0.1" in settings.trusted_proxies
    assert "203.0.113.9" not in settings.trusted_proxies


def test_what_daphne_ignores_is_named() -> None:
    """Nothing by default; each option that only ``serve`` honours, with a way out."""
    assert ignored_by_daphne(ProcessOptions()) == []
    options = msgspec.convert(
        {
            "http_server": {"tls": {"enabled": True}, "http3": {"enabled": True}},
            "webtransport": {"enabled": True},
            "websocket": {"compression": True},
            "workers": 2,
        },
        ProcessOptions,
    )
    assert [text.partition(":")[0] for text in ignored_by_daphne(options)] == [
        "http_server.tls",
        "http_server.http3",
        "webtransport",
        "websocket.compression",
        "workers",
    ]
