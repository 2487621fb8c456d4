"""What only the gRPC door has: bytes as payloads, statuses, metadata, TLS, health, reflection, limits."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from project.listeners import make_listeners
from realtime import commands
from realtime.conf.options import ProcessOptions, TLSOptions
from realtime.protocol import api_pb2
from realtime.protocol.errors import ConfigError
from realtime.servers.grpc_listener import GRPCListener, GRPCSettings
from realtime.servers.limits import missing_packages
from tests.server.api_world import (
    EPOCH,
    EVERYTHING_KEY,
    KEY,
    PUBLISH_KEY,
    World,
    make_options,
    open_world,
)
from tests.server.grpc_door import listening, read_status_details, stub


HAS_KEY = (("authorization", f"apikey {KEY}"),)
PROTOCOL = Path(commands.__file__).parents[1] / "protocol"


@asynccontextmanager
async def calling(world: World, **settings: Any) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to the world's API."""
    async with (
        listening(world, **settings) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


async def status_of(call: Any) -> grpc.StatusCode:
    """Await a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


def with_grpc(options: ProcessOptions, **facts: Any) -> ProcessOptions:
    """Change options of ``grpc_api``."""
    grpc_api = msgspec.structs.replace(options.grpc_api, **facts)
    return msgspec.structs.replace(options, grpc_api=grpc_api)


# --- clients ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The stubs that protoc makes of our schema, as any caller would make them."""
    folder = tmp_path_factory.mktemp("stubs")
    flags = [f"-I{PROTOCOL}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *flags, "api.proto"], check=True, timeout=60
    )
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("api_pb2"), importlib.import_module("api_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


async def test_a_generated_client_calls_the_service(generated: Any) -> None:
    """Publish, read back, and count, by nothing but generated code."""
    messages, services = generated
    async with open_world(make_options()) as world, calling(world) as channel:
        client = services.CentrifugoApiStub(channel)

        published = await client.Publish(
            messages.PublishRequest(channel="hist:a", data=b"1", tags={"a": "b"}), metadata=HAS_KEY
        )
        history = await client.History(
            messages.HistoryRequest(channel="hist:a", limit=-1), metadata=HAS_KEY
        )
        stats = await client.PresenceStats(
            messages.PresenceStatsRequest(channel="pres:room"), metadata=HAS_KEY
        )

    assert (published.result.offset, published.result.epoch) == (1, EPOCH)
    (publication,) = history.result.publications
    assert (publication.data, dict(publication.tags)) == (b"1", {"a": "b"})
    assert (stats.result.num_clients, stats.result.num_users) == (2, 2)


async def test_payloads_are_any_bytes() -> None:
    """What JSON can't carry goes in and comes back as it was."""
    data = bytes(range(256))
    async with open_world(make_options()) as world, calling(world) as channel:
        request = api_pb2.PublishRequest(channel="binary:a", data=data)
        await stub(channel, "Publish")(request, metadata=HAS_KEY)
        wanted = api_pb2.HistoryRequest(channel="binary:a", limit=1)

        response = await stub(channel, "History")(wanted, metadata=HAS_KEY)

    assert response.result.publications[0].data == data


async def test_methods_that_the_table_lacks_are_unimplemented() -> None:
    """They are in the schema, so stubs have them; unknown ones are no different."""
    async with open_world(make_options()) as world, calling(world) as channel:
        for title in ("BlockUser", "CancelPush", "Connections"):
            request = getattr(api_pb2, f"{title}Request")()

            code = await status_of(stub(channel, title)(request, metadata=HAS_KEY))

            assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_request_are_an_internal_error() -> None:
    """As with Go's server; the caller's key is looked at first."""
    async with open_world(make_options()) as world, calling(world) as channel:
        publish = channel.unary_unary("/centrifugal.centrifugo.api.CentrifugoApi/Publish")

        assert await status_of(publish(b"\x0a", metadata=HAS_KEY)) is grpc.StatusCode.INTERNAL
        assert await status_of(publish(b"\x0a")) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_large_request_is_refused_by_the_limit() -> None:
    """``max_receive_message_size`` counts bytes of the message."""
    async with (
        open_world(make_options()) as world,
        calling(world, max_receive_bytes=1000) as channel,
    ):
        publish = stub(channel, "Publish")
        small = api_pb2.PublishRequest(channel="a", data=b"x" * 900)
        large = api_pb2.PublishRequest(channel="a", data=b"x" * 1001)

        await publish(small, metadata=HAS_KEY)
        code = await status_of(publish(large, metadata=HAS_KEY))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_a_function_of_the_application_raises_stays_here() -> None:
    """An unforeseen exception is code 100; its text is for the log."""

    async def crash(_params: bytes) -> bytes:
        raise RuntimeError("a password")

    commands.register_rpc("crash", crash)
    try:
        async with open_world(make_options()) as world, calling(world) as channel:
            request = api_pb2.RPCRequest(method="crash")
            response = await stub(channel, "RPC")(request, metadata=HAS_KEY)
    finally:
        commands.unregister_rpc("crash")

    assert (response.error.code, response.error.message) == (100, "internal server error")


# --- keys and error modes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (f"apikey {KEY}", None),
        (f"ApiKey {KEY}", None),
        (f"apikey {EVERYTHING_KEY}", None),
        (f"apikey {PUBLISH_KEY}", grpc.StatusCode.PERMISSION_DENIED),
        ("apikey wrong", grpc.StatusCode.UNAUTHENTICATED),
        (f"Bearer {KEY}", grpc.StatusCode.UNAUTHENTICATED),
        (KEY, grpc.StatusCode.UNAUTHENTICATED),
        (None, grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_the_key_decides(authorization: str | None, code: grpc.StatusCode | None) -> None:
    """The option's key and rows with their scopes, as ``authorization: apikey KEY``."""
    metadata = (("authorization", authorization),) if authorization else ()
    async with open_world(make_options()) as world, calling(world) as channel:
        call = stub(channel, "Info")(api_pb2.InfoRequest(), metadata=metadata)

        if code is None:
            assert (await call).result.nodes
        else:
            assert await status_of(call) is code


async def test_the_key_is_that_of_grpc() -> None:
    """``http_api.key`` opens no gRPC port, and an empty ``grpc_api.key`` asks for none."""
    for key, expected in (("another", grpc.StatusCode.UNAUTHENTICATED), ("", None)):
        options = with_grpc(make_options(), key=key)
        async with open_world(options) as world, calling(world) as channel:
            call = stub(channel, "Info")(api_pb2.InfoRequest(), metadata=HAS_KEY)

            if expected is None:
                assert (await call).result.nodes
            else:
                assert await status_of(call) is expected


@pytest.mark.parametrize(
    ("option", "header", "is_transport"),
    [
        ("", None, False),
        ("transport", None, True),
        ("", "transport", True),
        ("", "Transport", False),
    ],
)
async def test_errors_are_responses_or_statuses(
    option: str, header: str | None, is_transport: bool
) -> None:
    """By the option, or for one call by its metadata; a status has the error in its details."""
    options = with_grpc(make_options(), error_mode=option)
    metadata = HAS_KEY + ((("x-centrifugo-error-mode", header),) if header else ())
    async with open_world(options) as world, calling(world) as channel:
        request = api_pb2.PublishRequest(channel="nowhere:a", data=b"1")
        call = stub(channel, "Publish")(request, metadata=metadata)

        if not is_transport:
            assert (await call).error.code == 102
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "unknown channel"
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert read_status_details(details) == (
        5,
        "unknown channel",
        api_pb2.Error(code=102, message="unknown channel"),
    )


# --- health and reflection ----------------------------------------------------------------------------


async def test_health_needs_no_key_and_ends_with_the_port() -> None:
    """The server and its service are serving, and a watcher hears when they no longer are."""
    async with open_world(make_options()) as world, calling(world) as channel:
        client = health_pb2_grpc.HealthStub(channel)
        for service in ("", "centrifugal.centrifugo.api.CentrifugoApi"):
            answer = await client.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        unknown = client.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert await status_of(unknown) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("package", ["v1", "v1alpha"])
async def test_reflection_tells_the_schema(package: str) -> None:
    """The services by name, and the file that has ours."""
    async with (
        open_world(make_options()) as world,
        calling(world, has_reflection=True) as channel,
    ):
        ask = channel.stream_stream(
            f"/grpc.reflection.{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        wanted = "centrifugal.centrifugo.api.CentrifugoApi"
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=wanted),
        ]

        listed, found = [response async for response in ask(iter(requests))]

    names = {service.name for service in listed.list_services_response.service}
    assert {wanted, "grpc.health.v1.Health"} <= names
    (data,) = found.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(data).service[0].name == "CentrifugoApi"


async def test_without_the_option_there_is_no_reflection() -> None:
    """The schema is nobody's business unless the operator says so."""
    async with open_world(make_options()) as world, calling(world) as channel:
        ask = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )

        assert await status_of(anext(aiter(ask(iter([b""]))))) is grpc.StatusCode.UNIMPLEMENTED


# --- TLS ----------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority and what it signs, as PEM texts."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.pem = self._sign(self._name, self._key.public_key(), is_authority=True)

    def issue(self, name: str) -> tuple[str, str]:
        """Make a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._sign(subject, key.public_key(), is_authority=False), private.decode()

    def _sign(self, subject: x509.Name, key: Any, *, is_authority: bool) -> str:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return (
            builder.sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The authority of these tests."""
    return Authority()


def secure_channel(
    port: int, authority: Authority, client: tuple[str, str] | None = None
) -> grpc.aio.Channel:
    """Open a channel that trusts the authority, with a client's certificate and key if there are any."""
    certificate, key = client or (None, None)
    credentials = grpc.ssl_channel_credentials(
        authority.pem.encode(),
        key.encode() if key else None,
        certificate.encode() if certificate else None,
    )
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


async def info(channel: grpc.aio.Channel) -> Any:
    """Make a call that succeeds if the channel does."""
    return await stub(channel, "Info")(api_pb2.InfoRequest(), metadata=HAS_KEY, timeout=30)


async def test_tls(authority: Authority) -> None:
    """A client that trusts the certificate is served, one without TLS is not."""
    certificate, key = authority.issue("server")
    tls = TLSOptions(enabled=True, cert_pem=certificate, key_pem=key)
    async with (
        open_world(make_options()) as world,
        listening(world, tls=lambda: tls) as port,
        secure_channel(port, authority) as secure,
        grpc.aio.insecure_channel(f"localhost:{port}") as plain,
        secure_channel(port, Authority()) as stranger,
    ):
        assert (await info(secure)).result.nodes
        assert await status_of(info(plain)) is grpc.StatusCode.UNAVAILABLE
        assert await status_of(info(stranger)) is grpc.StatusCode.UNAVAILABLE


async def test_client_certificates_are_demanded_where_there_is_an_authority(
    authority: Authority,
) -> None:
    """None, or one of somebody else, is no certificate."""
    certificate, key = authority.issue("server")
    tls = TLSOptions(enabled=True, cert_pem=certificate, key_pem=key, client_ca_pem=authority.pem)
    async with (
        open_world(make_options()) as world,
        listening(world, tls=lambda: tls) as port,
        secure_channel(port, authority, authority.issue("client")) as known,
        secure_channel(port, authority) as nobody,
        secure_channel(port, authority, Authority().issue("client")) as somebody,
    ):
        assert (await info(known)).result.nodes
        assert await status_of(info(nobody)) is grpc.StatusCode.UNAVAILABLE
        assert await status_of(info(somebody)) is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(authority: Authority) -> None:
    """New connections get what the options say now, if it can be used."""
    first, second = authority.issue("first"), authority.issue("second")
    options = {"now": TLSOptions(enabled=True, cert_pem=first[0], key_pem=first[1])}
    async with (
        open_world(make_options()) as world,
        listening(world, tls=lambda: options["now"]) as port,
    ):
        assert await _certificate(port, authority) == _der(first[0])

        options["now"] = TLSOptions(enabled=True, cert_pem=second[0], key_pem=second[1])
        assert await _certificate(port, authority) == _der(second[0])

        options["now"] = TLSOptions(enabled=True, cert_pem=first[0], key_pem=second[1])
        assert await _certificate(port, authority) == _der(second[0])


async def _certificate(port: int, authority: Authority) -> bytes | None:
    """Shake hands and return the server's certificate."""
    context = ssl.create_default_context(cadata=authority.pem)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return certificate


def _der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)


async def test_a_certificate_that_cannot_be_used_is_said_at_the_start(
    authority: Authority,
) -> None:
    """gRPC itself would start and fail every handshake."""
    certificate, _ = authority.issue("a")
    _, key = authority.issue("b")
    tls = TLSOptions(enabled=True, cert_pem=certificate, key_pem=key)
    async with open_world(make_options()) as world:
        with pytest.raises(ConfigError, match=r"grpc_api\.tls: certificate or key can't be used"):
            async with listening(world, tls=lambda: tls):
                pass


# --- listening ----------------------------------------------------------------------------------------


async def test_a_taken_port_is_said_at_the_start() -> None:
    """Two processes must not share a port on the memory engine."""
    async with open_world(make_options()) as world, listening(world) as port:
        listener = GRPCListener(
            GRPCSettings("grpc_api", "127.0.0.1", port, tls=TLSOptions), _NoService()
        )

        with pytest.raises(ConfigError, match=rf"grpc_api: can't listen on 127\.0\.0\.1:{port}"):
            await listener.start()
        await listener.stop(0)


async def test_a_shared_port_is_for_several() -> None:
    """Workers on the Redis engine listen on one port."""
    async with (
        open_world(make_options()) as world,
        listening(world, is_shared=True) as port,
    ):
        settings = GRPCSettings("grpc_api", "127.0.0.1", port, tls=TLSOptions, is_shared=True)
        listener = GRPCListener(settings, _NoService())

        await listener.start()

        assert listener.port == port
        await listener.stop(0)


class _NoService:
    name = "no.Service"
    schema = b""

    def handlers(self) -> dict[str, Any]:
        return {}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the port is told what to install; nobody else needs it."""
    monkeypatch.setitem(sys.modules, "grpc", None)
    without = ProcessOptions()
    asked = with_grpc(without, enabled=True)
    text = (
        "grpc_api.enabled needs grpcio, which is not installed: "
        "pip install -r requirements-grpc.txt"
    )

    assert missing_packages(without) == []
    assert make_listeners(without) == []
    assert missing_packages(asked) == [text]
    with pytest.raises(ConfigError, match="pip install -r requirements-grpc"):
        make_listeners(asked)
