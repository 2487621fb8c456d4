"""Every form of address, which of them wins, and what an operator is told of a wrong one."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from realtime.conf.durations import parse_duration
from realtime.conf.options import RedisOptions, TLSOptions
from realtime.engines.redis.addresses import Deployment, Endpoint, deployments
from realtime.protocol.errors import ConfigError
from tests.unit.servers.certificates import self_signed


def read(*address: str, **options: Any) -> tuple[Deployment, ...]:
    if address:
        options["address"] = address
    return deployments(RedisOptions(**options), parse_duration=parse_duration)


def read_one(address: str, **options: Any) -> Deployment:
    (found,) = read(address, **options)
    return found


def seeds(deployment: Deployment) -> list[tuple[str, int]]:
    return [(seed.host, seed.port) for seed in deployment.seeds]


def test_the_default_is_a_redis_on_this_machine() -> None:
    """No option at all is 127.0.0.1:6379 without a user, on database 0, with the documented timeouts."""
    assert read() == (Deployment("single", (Endpoint(),), data=Endpoint()),)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("example.org:7000", "example.org", 7000),
        ("[::1]:7000", "::1", 7000),
        ("tcp://example.org:7000", "example.org", 7000),
        ("redis://example.org:7000", "example.org", 7000),
        ("redis://[::1]:7000", "::1", 7000),
        ("redis://example.org", "example.org", 6379),
        ("redis://example.org/", "example.org", 6379),
        (" redis://example.org ", "example.org", 6379),
    ],
)
def test_one_server_is_named_by_host_and_port(address: str, host: str, port: int) -> None:
    """With and without a scheme; a URL may leave out the port."""
    found = read_one(address)

    assert (found.kind, seeds(found)) == ("single", [(host, port)])
    assert found.data == found.seeds[0]
    assert found.data.ssl_context is None


def test_a_url_carries_user_password_and_database() -> None:
    """They win over the options, and what they leave out is taken from there."""
    options = {"user": "u", "password": "p", "db": 1, "client_name": "tide"}

    with_all = read_one("redis://us%40er:pa%2Fss@h:1/3", **options).data
    with_password = read_one("redis://:secret@h:1", **options).data
    without = read_one("redis://h:1", **options).data

    assert (with_all.username, with_all.password, with_all.db) == ("us@er", "pa/ss", 3)
    assert (with_password.username, with_password.password, with_password.db) == ("u", "secret", 1)
    assert (without.username, without.password, without.client_name) == ("u", "p", "tide")


def test_a_unix_socket_is_a_path() -> None:
    """``unix://`` and an absolute path; the user may stand before it, and the database is the option."""
    found = read_one("unix://u:p@/run/my%20redis.sock", db=2)

    assert (found.data.path, found.data.db) == ("/run/my redis.sock", 2)
    assert (found.data.username, found.data.password) == ("u", "p")
    assert found.data.label == "/run/my redis.sock"
    assert read_one("unix:///run/redis.sock").seeds[0].path == "/run/redis.sock"


def test_several_addresses_are_shards_in_their_order() -> None:
    """Each with its own credentials."""
    found = read("redis://:a@h1:1", "h2:2", "rediss://h3:3", password="p")

    assert [seeds(one) for one in found] == [[("h1", 1)], [("h2", 2)], [("h3", 3)]]
    assert [one.data.password for one in found] == ["a", "p", "p"]
    assert [one.data.ssl_context is not None for one in found] == [False, False, True]


def test_sentinels_by_a_url() -> None:
    """The address and each ``addr`` are sentinels; user, password and database are those of the data servers."""
    found = read_one(
        "redis+sentinel://u:p@s1/4?addr=s2:2&addr=[::1]:3&sentinel_master_name=tide"
        "&sentinel_user=su&sentinel_password=sp"
    )

    assert (found.kind, found.master_name) == ("sentinel", "tide")
    assert seeds(found) == [("s1", 26379), ("s2", 2), ("::1", 3)]
    assert {(one.username, one.password, one.db) for one in found.seeds} == {("su", "sp", 0)}
    assert (found.data.username, found.data.password, found.data.db) == ("u", "p", 4)
    assert all(one.ssl_context is None for one in (found.data, *found.seeds))


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("redis://s:1?sentinel_master_name=tide", {}),
        ("redis://s:1", {"sentinel_master_name": "tide"}),
        ("s:1", {"sentinel_master_name": "tide"}),
        ("redis+sentinel://s:1", {"sentinel_master_name": "tide"}),
        ("redis+sentinel://s:1?sentinel_master_name=tide", {"sentinel_master_name": "other"}),
    ],
)
def test_the_name_of_a_master_makes_an_address_one_of_a_sentinel(
    address: str, options: dict[str, Any]
) -> None:
    """Wherever it stands; the URL's wins."""
    found = read_one(address, **options)

    assert (found.kind, found.master_name, seeds(found)) == ("sentinel", "tide", [("s", 1)])


def test_rediss_with_sentinel_is_tls_to_both() -> None:
    """One scheme says it for the sentinels and for the data servers; the parameters say it for each."""
    both = read_one("rediss+sentinel://s:1?sentinel_master_name=m")
    data = read_one("redis+sentinel://s:1?sentinel_master_name=m&tls_enabled=true")
    sentinels = read_one("redis+sentinel://s:1?sentinel_master_name=m&sentinel_tls_enabled=1")

    def encrypted(one: Deployment) -> tuple[bool, bool]:
        return one.data.ssl_context is not None, one.seeds[0].ssl_context is not None

    assert [encrypted(one) for one in (both, data, sentinels)] == [
        (True, True),
        (True, False),
        (False, True),
    ]


def test_sentinel_address_lists_the_sentinels_of_one_master() -> None:
    """With their own credentials; several elements are not several shards."""
    (found,) = read(
        sentinel_address=("s1:1", "s2:2,s3:3"),
        sentinel_master_name="tide",
        sentinel_user="su",
        sentinel_password="sp",
        sentinel_client_name="sc",
        user="u",
        password="p",
        db=5,
        client_name="c",
    )

    assert (found.kind, found.master_name) == ("sentinel", "tide")
    assert seeds(found) == [("s1", 1), ("s2", 2), ("s3", 3)]
    assert (found.seeds[0].username, found.seeds[0].password) == ("su", "sp")
    assert (found.seeds[0].client_name, found.seeds[0].db) == ("sc", 0)
    assert (found.data.username, found.data.password) == ("u", "p")
    assert (found.data.client_name, found.data.db) == ("c", 5)


def test_a_cluster_by_a_url() -> None:
    """The address and each ``addr`` are seeds."""
    found = read_one("redis+cluster://u:p@c1:1?addr=c2:2&addr=c3:3")
    with_tls = read_one("rediss+cluster://c1")

    assert (found.kind, seeds(found)) == ("cluster", [("c1", 1), ("c2", 2), ("c3", 3)])
    assert {(one.username, one.password) for one in (*found.seeds, found.data)} == {("u", "p")}
    assert (seeds(with_tls), with_tls.data.ssl_context is not None) == ([("c1", 6379)], True)


def test_cluster_address_has_seeds_separated_by_commas() -> None:
    """One element is one cluster; several elements are shards over clusters."""
    found = read(cluster_address=("a:1, a:2", "b:1"), password="p")

    assert [one.kind for one in found] == ["cluster", "cluster"]
    assert [seeds(one) for one in found] == [[("a", 1), ("a", 2)], [("b", 1)]]
    assert {one.data.password for one in found} == {"p"}


def test_a_cluster_wins_over_sentinels_and_those_over_an_address() -> None:
    """The order of precedence when several are given."""
    sentinels = {"sentinel_address": ("s:1",), "sentinel_master_name": "m"}

    assert [one.kind for one in read("h:1", **sentinels)] == ["sentinel"]
    assert [one.kind for one in read("h:1", **sentinels, cluster_address=("c:1",))] == ["cluster"]


def test_the_query_overrides_timeouts_and_protocol() -> None:
    """Durations have units; booleans are those of the other server."""
    options = {"connect_timeout": 9.0, "io_timeout": 9.0, "force_resp2": True}

    kept = read_one("redis://h:1", **options)
    changed = read_one(
        "redis://h:1?connect_timeout=300ms&io_timeout=2s&force_resp2=F&replica_client_enabled=true",
        **options,
    )

    assert (kept.connect_timeout, kept.io_timeout, kept.force_resp2) == (9.0, 9.0, True)
    assert (changed.connect_timeout, changed.io_timeout, changed.force_resp2) == (0.3, 2.0, False)


def test_tls_verifies_against_the_given_authority_with_1_2_at_least() -> None:
    """The options of ``tls`` shape the context; without verification it is off altogether."""
    certificate, key = self_signed()
    tls = TLSOptions(
        enabled=True,
        server_ca_pem=certificate,
        cert_pem=certificate,
        key_pem=key,
        server_name="redis.internal",
    )

    endpoint = read_one("h:1", tls=tls).data
    careless = read_one(
        "rediss://h:1", tls=msgspec.structs.replace(tls, enabled=False, insecure_skip_verify=True)
    ).data

    assert endpoint.ssl_context is not None
    assert careless.ssl_context is not None
    assert endpoint.server_name == "redis.internal"
    assert endpoint.ssl_context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert endpoint.ssl_context.check_hostname
    assert endpoint.ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert endpoint.ssl_context.cert_store_stats()["x509"] == 1
    assert careless.ssl_context.verify_mode == ssl.CERT_NONE
    assert not careless.ssl_context.check_hostname


def test_a_url_that_turns_tls_off_wins_over_the_option() -> None:
    """``tls_enabled=false`` is an override like any other."""
    assert read_one("redis://h:1?tls_enabled=false", tls=TLSOptions(enabled=True)).data == Endpoint(
        "h", 1
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"address": ()}, "engine.redis.address is empty"),
        ({"address": ("",)}, "address[0]: must be host:port or a URL"),
        ({"address": ("localhost",)}, "address[0]: must be host:port or a URL"),
        ({"address": ("h:1", ":6379")}, "address[1]: must be host:port or a URL"),
        ({"address": ("h:x",)}, "address[0]: must be host:port or a URL"),
        ({"address": ("h:0",)}, "address[0]: there is no port 0"),
        ({"address": ("h:65536",)}, "address[0]: there is no port 65536"),
        ({"address": ("::1:6379",)}, "address[0]: must be host:port or a URL"),
        ({"address": ("u:secret@h:1",)}, "address[0]: must be host:port or a URL"),
        ({"address": ("http://h:1",)}, "address[0]: must be host:port or a URL with one of tcp, "),
        ({"address": ("redis://",)}, "address[0]: has no host"),
        ({"address": ("redis://h:secret",)}, "address[0]: not a valid URL"),
        ({"address": ("redis://[h:1",)}, "address[0]: not a valid URL"),
        ({"address": ("redis://h:1#secret",)}, "address[0]: has a # that must be written as"),
        ({"address": ("redis://h:1/secret",)}, "address[0]: the database after the / must be a"),
        ({"address": ("redis://h:1?addr=i:2",)}, "address[0]: addr is for seeds of a cluster and"),
        ({"address": ("redis+cluster://h:1?addr=secret",)}, "address[0]: must be host:port or a"),
        ({"address": ("redis://h:1?adr=x",)}, "address[0]: unknown parameter 'adr'"),
        ({"address": ("redis://h:1?io_timeout=4",)}, "address[0]: io_timeout: "),
        ({"address": ("redis://h:1?tls_enabled=yes",)}, "address[0]: tls_enabled must be true or"),
        ({"address": ("unix://redis.sock",)}, "address[0]: a unix socket needs an absolute path"),
        ({"address": ("unix://run/redis.sock",)}, "address[0]: a unix socket needs an absolute"),
        ({"address": ("unix:///s?addr=h:1",)}, "address[0]: a unix socket is neither a sentinel"),
        ({"address": ("redis+sentinel://s:1",)}, "address[0]: Sentinel needs sentinel_master_name"),
        ({"sentinel_address": ("s:1",)}, "engine.redis: Sentinel needs sentinel_master_name"),
        ({"sentinel_address": ("redis://s:1",)}, "sentinel_address[0]: must be host:port"),
        ({"cluster_address": ("c:1", "redis://c:2")}, "cluster_address[1]: must be host:port"),
        ({"cluster_address": ("c:1,",)}, "cluster_address[0]: must be host:port"),
        ({"cluster_address": ("c:1",), "db": 1}, "a cluster has no database 1, only 0"),
        ({"client_name": "a b"}, "a client_name can't have spaces"),
        ({"tls": TLSOptions(enabled=True, cert_pem="secret")}, "tls: cert_pem and key_pem belong"),
        ({"tls": TLSOptions(enabled=True, server_ca_pem="secret")}, "engine.redis.tls: certific"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_of_it_is_shown(
    options: dict[str, Any], text: str
) -> None:
    """The error says which element of which option, and what it should be, and never repeats it."""
    with pytest.raises(ConfigError) as caught:
        read(**options)

    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_text_of_an_endpoint_shows_its_password() -> None:
    """Neither its label nor its repr, which logs and failed assertions print."""
    endpoint = read_one("redis://u:secret@[::1]:1").data

    assert endpoint.label == "[::1]:1"
    assert "secret" not in repr(endpoint)


def test_the_addresses_of_the_readme_are_read() -> None:
    """Each stands in the row of its deployment."""
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (one server|TLS|Sentinel|Cluster|several servers)[^|]* \| (.*) \|$", readme, re.M
    )
    shown = {name: re.findall(r"[\w+]+://[^`\" ]+", cell) for name, cell in rows}

    kinds = {name: [one.kind for one in read(*addresses)] for name, addresses in shown.items()}

    assert kinds == {
        "one server": ["single", "single"],
        "TLS": ["single"],
        "Sentinel": ["sentinel"],
        "Cluster": ["cluster"],
        "several servers": ["single", "single"],
    }
