"""Both gRPC ports of real servers: the API's and that of clients that only listen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from realtime.protocol import api_pb2
from tests import redis_servers
from tests.live.conftest import copy_database
from tests.live.harness import ROOT, Server, environment, free_port, raw
from tests.server.grpc_door import stub
from tests.server.test_uni_grpc import consume, next_of


pytestmark = pytest.mark.live

MakeServer = Callable[[Mapping[str, str]], Server]
KEY = (("authorization", "apikey the key of the gRPC API"),)


def grpc_options(**more: str) -> dict[str, str]:
    """Switch both ports on."""
    return {
        "TIDEWIRE_GRPC_API_ENABLED": "true",
        "TIDEWIRE_GRPC_API_ADDRESS": "127.0.0.1",
        "TIDEWIRE_GRPC_API_PORT": str(free_port()),
        "TIDEWIRE_GRPC_API_KEY": KEY[0][1].removeprefix("apikey "),
        "TIDEWIRE_UNI_GRPC_ENABLED": "true",
        "TIDEWIRE_UNI_GRPC_ADDRESS": "127.0.0.1",
        "TIDEWIRE_UNI_GRPC_PORT": str(free_port()),
        **more,
    }


def channel_to(options: Mapping[str, str], section: str) -> grpc.aio.Channel:
    """Open a channel to a port, of its own connection."""
    port = options[f"TIDEWIRE_{section}_PORT"]
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    )


async def test_the_ports_are_there_from_start_to_end(make_server: MakeServer) -> None:
    """
    A publication by one port reaches a WebSocket and the other port; at SIGTERM the streams hear 3001.

    Under Daphne, too, before anybody has asked for anything by HTTP.
    """
    options = grpc_options()
    server = await asyncio.to_thread(make_server, options)
    async with (
        channel_to(options, "GRPC_API") as api,
        channel_to(options, "UNI_GRPC") as uni,
        raw(server) as socket,
    ):
        await socket.connect()
        await socket.ask({"id": 2, "subscribe": {"channel": "a"}})
        stream = consume(uni, subs={"a": {}})
        connected = await next_of(stream)

        response = await stub(api, "Publish")(
            api_pb2.PublishRequest(channel="a", data=b'{"n":1}'), metadata=KEY
        )

        pushed = await next_of(stream)
        assert connected.connect.client
        assert not response.HasField("error")
        assert (pushed.channel, pushed.pub.data) == ("a", b'{"n":1}')
        assert await socket.receive() == {"push": {"channel": "a", "pub": {"data": {"n": 1}}}}
        refused = stub(api, "Info")(api_pb2.InfoRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await refused
        health = health_pb2_grpc.HealthStub(api)
        serving = await health.Check(health_pb2.HealthCheckRequest())
        assert serving.status == health_pb2.HealthCheckResponse.SERVING

        await asyncio.to_thread(server.terminate)

        assert (await next_of(stream)).disconnect.code == 3001
        assert await stream.code() is grpc.StatusCode.OK
    assert await asyncio.to_thread(server.wait) == 0


@pytest.mark.redis
async def test_workers_share_the_ports(database: Path, tmp_path: Path) -> None:
    """Streams are dealt out to two workers, and each gets what any of them was told to publish."""
    copy_database(database, tmp_path)
    with redis_servers.single() as redis:
        options = grpc_options(
            TIDEWIRE_ENGINE_TYPE="redis",
            TIDEWIRE_ENGINE_REDIS_ADDRESS=redis.address,
            TIDEWIRE_WORKERS="2",
        )
        server = await asyncio.to_thread(Server("serve", tmp_path, options).start)
        try:
            async with contextlib.AsyncExitStack() as stack:
                api = await stack.enter_async_context(channel_to(options, "GRPC_API"))
                await _until(api, lambda nodes: len(nodes) == 2)
                streams = []
                for _ in range(20):
                    uni = await stack.enter_async_context(channel_to(options, "UNI_GRPC"))
                    streams.append(consume(uni, subs={"a": {}}))
                for stream in streams:
                    await next_of(stream)
                await stub(api, "Publish")(
                    api_pb2.PublishRequest(channel="a", data=b"1"), metadata=KEY
                )

                assert [(await next_of(stream)).pub.data for stream in streams] == [b"1"] * 20
                # That all have come to one worker is as likely as nineteen coins that fall alike.
                await _until(api, lambda nodes: all(0 < node.num_clients < 20 for node in nodes))
        finally:
            status = await asyncio.to_thread(server.stop)
    assert status == 0, server.log
    assert server.log.count("serving uni_grpc on") == 2


async def _until(api: grpc.aio.Channel, is_so: Callable[[Any], bool]) -> None:
    """Wait until the nodes, which tell each other every few seconds, are as they should."""
    async with asyncio.timeout(20):
        while not is_so((await _info(api)).result.nodes):  # noqa: ASYNC110 -- another process's state
            await asyncio.sleep(0.1)


async def _info(api: grpc.aio.Channel) -> Any:
    return await stub(api, "Info")(api_pb2.InfoRequest(), metadata=KEY)


def _failing(database: Path, options: Mapping[str, str], folder: Path) -> str:
    """Run ``serve``, which must fail at its start, and return what it said."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(free_port())],
        cwd=ROOT,
        env={**environment(database, options), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_named(database: Path, tmp_path: Path) -> None:
    """Before anything starts, and in a sentence."""
    options = grpc_options()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(options["TIDEWIRE_UNI_GRPC_PORT"])))
        taken.listen()

        said = _failing(database, options, tmp_path)

    port = options["TIDEWIRE_UNI_GRPC_PORT"]
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in said


def test_missing_packages_are_named(database: Path, tmp_path: Path) -> None:
    """Without grpcio the server serves everything else, and says what its ports would need."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")

    said = _failing(database, grpc_options(), tmp_path)

    for section in ("grpc_api", "uni_grpc"):
        assert (
            f"{section}.enabled needs grpcio, which is not installed: "
            "pip install -r requirements-grpc.txt"
        ) in said
