"""Deltas and tags filters with SDKs that were not written here, and their decoders on thousands of documents."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from realtime.protocol.fossil import create
from tests import redis_servers
from tests.live.conftest import MakeSdk
from tests.live.harness import API_KEY, HERE, Sdk, Server


pytestmark = pytest.mark.live

_numbers = itertools.count()
ODD = {"key": "kind", "cmp": "eq", "val": "odd"}


@pytest.fixture
def name(sdk_kind: str, shape: str) -> str:
    """Give a name that no other test uses: servers are shared."""
    return f"{sdk_kind}-{shape}-{next(_numbers)}"


def article(number: int) -> dict[str, Any]:
    """Make a document of some 600 bytes, not all ASCII, that changes a little."""
    return {"text": "Der Absatz bleibt: äöü€😀. " * 12, "n": number, "odd": "ä" * (number % 3)}


async def _publish(server: Server, channel: str, data: object, **parameters: object) -> None:
    await asyncio.to_thread(server.publish, channel, data, **parameters)


async def test_a_changing_document_arrives_as_patches(
    server: Server, make_sdk: MakeSdk, name: str, sdk_kind: str
) -> None:
    """The application sees documents; on the wire there is one, and then what differs."""
    channel = f"doc:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel, delta="fossil", recoverable=True)

    for number in range(6):
        await _publish(server, channel, article(number))

    for number in range(6):
        assert (await client.wait("publication", channel=channel))["data"] == article(number)
    if sdk_kind.startswith("js"):
        assert await client.do("patches", channel=channel) == 5
    if sdk_kind.startswith("go"):
        size = len(json.dumps(article(0)))
        assert size < await client.do("received_bytes") < 3 * size
    assert not client.seen("error")


async def test_a_dropped_connection_recovers_and_patches_go_on(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """What was missed, in order, and then the next; also where nothing was missed."""
    channel = f"doc:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel, delta="fossil", recoverable=True)
    for number in range(2):
        await _publish(server, channel, article(number))
        await client.wait("publication", channel=channel)

    for first, missed in ((2, 3), (7, 0)):
        await client.do("disconnect")
        await client.wait("disconnected")
        for number in range(first, first + missed):
            await _publish(server, channel, article(number))
        await client.do("connect_again")
        assert (await client.wait("subscribed", channel=channel))["recovered"] is True
        for number in range(first + missed, first + missed + 2):
            await _publish(server, channel, article(number))
        for number in range(first, first + missed + 2):
            assert (await client.wait("publication", channel=channel))["data"] == article(number)
    assert not client.seen("error")


async def test_a_filter_keeps_back_what_is_not_wanted(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """Live and in a recovery; the position moves on all the same."""
    channel = f"tagged:{name}"
    client = await make_sdk(server)
    await client.connect()
    await client.subscribe(channel, tf=ODD, recoverable=True)

    async def publish(first: int, last: int) -> None:
        for number in range(first, last):
            kind = "odd" if number % 2 else "even"
            await _publish(server, channel, number, tags={"kind": kind})

    await publish(0, 4)
    for number in (1, 3):
        assert (await client.wait("publication", channel=channel))["data"] == number
    await client.do("disconnect")
    await client.wait("disconnected")
    await publish(4, 8)
    await client.do("connect_again")
    assert (await client.wait("subscribed", channel=channel))["recovered"] is True
    await publish(8, 10)

    for number in (5, 7, 9):
        assert (await client.wait("publication", channel=channel))["data"] == number
    assert len(client.seen("publication", channel=channel)) == 5


async def test_clients_that_drop_all_the_time_end_with_the_publishers_document(
    server: Server, make_sdk: MakeSdk, name: str
) -> None:
    """A seeded run: a table changes 150 times while sockets are cut; nobody misses a version."""
    rng = random.Random(11)
    channel = f"doc:{name}"
    clients: list[Sdk] = [await make_sdk(server) for _ in range(3)]
    for client in clients:
        await client.connect()
        await client.subscribe(channel, delta="fossil", recoverable=True)
    rows = [{"name": f"row ä€ {number}", "value": 0.0} for number in range(20)]
    versions = []

    for _ in range(150):
        for row in rng.sample(rows, rng.randrange(1, 4)):
            row["value"] = rng.random()
        versions.append(json.loads(json.dumps(rows)))
        await _publish(server, channel, rows)
        if rng.random() < 0.1:
            await rng.choice(clients).do("kill")

    for client in clients:
        while True:
            event = await client.wait("publication", channel=channel)
            if event["data"] == versions[-1]:
                break
        assert [each["data"] for each in client.seen("publication", channel=channel)] == versions
        assert client.seen("connecting")


@pytest.mark.redis
@pytest.mark.parametrize("lists", ["false", "true"], ids=["streams", "lists"])
async def test_nodes_on_redis_send_patches_of_what_others_published(
    make_server: Callable[[Mapping[str, str]], Server], shape: str, lists: str
) -> None:
    """Published at one node, patched and filtered at another; a recovery at either goes on with patches."""
    with redis_servers.single() as redis:
        options = {
            "TIDEWIRE_ENGINE_TYPE": "redis",
            "TIDEWIRE_ENGINE_REDIS_ADDRESS": redis.address,
            "TIDEWIRE_ENGINE_REDIS_HISTORY_USE_LISTS": lists,
        }
        here, there = make_server(options), make_server(options)
        for kind in ("js-json", "js-protobuf"):
            channel, tagged = f"doc:{kind}", f"tagged:{kind}"
            client = await Sdk.start(kind, there.websocket_url)
            await client.connect()
            await client.subscribe(channel, delta="fossil", recoverable=True)
            await client.subscribe(tagged, tf=ODD, recoverable=True)
            for number in range(4):
                await _publish(here, channel, article(number))
                await _publish(here, tagged, number, tags={"kind": "odd" if number % 2 else "even"})
            for number in range(4):
                assert (await client.wait("publication", channel=channel))["data"] == article(
                    number
                )
            await client.do("kill")
            for number in range(4, 7):
                await _publish(here, channel, article(number))
                await _publish(here, tagged, number, tags={"kind": "odd" if number % 2 else "even"})
            for number in range(4, 7):
                assert (await client.wait("publication", channel=channel))["data"] == article(
                    number
                )
            for number in (1, 3, 5):
                assert (await client.wait("publication", channel=tagged))["data"] == number
            assert await client.do("patches", channel=channel) >= 4
            await client.close()
        here.stop()
        there.stop()


async def test_the_example_publishes_a_file_whenever_it_is_saved(
    server: Server, tmp_path: Path
) -> None:
    """``examples/live-document``: the whole file at first, and then what was changed in it."""
    channel = f"doc:file-{next(_numbers)}"
    document = tmp_path / "notes.md"
    text = "Ein Absatz, der bleibt: äöü€😀.\n" * 30
    document.write_text(text, encoding="utf-8")
    client = await Sdk.start("js-json", server.websocket_url)
    await client.connect()
    await client.subscribe(channel, delta="fossil", recoverable=True)
    program = str(HERE.parents[1] / "examples" / "live-document" / "publish.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        str(document),
        channel,
        server.url,
        env={**os.environ, "TIDEWIRE_API_KEY": API_KEY},
    )
    try:
        for addition in ("", "mehr\n", "noch mehr\n"):
            text += addition
            document.write_text(text, encoding="utf-8")
            while (await client.wait("publication", channel=channel))["data"]["text"] != text:
                pass  # an editor's half-saved file is published, too
        assert await client.do("patches", channel=channel) >= 2
    finally:
        process.terminate()
        await process.wait()
        await client.close()


# --- the decoders ---------------------------------------------------------------------------------------


def _texts(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Yield documents before and after a change, as applications have them and as nobody has."""
    for _ in range(1500):
        alphabet = rng.choice(["ab", '{}[]:," 0123456789', "aä€😀", "abcdefghijklmnopqrstuvwxyz "])
        before = "".join(rng.choices(alphabet, k=rng.randrange(400)))
        after = before
        for _ in range(rng.randrange(5)):
            at, end = sorted(rng.randrange(len(after) + 1) for _ in range(2))
            piece = rng.choice([before, after])[: rng.randrange(60)]
            after = after[:at] + piece + after[end:]
        yield before.encode(), after.encode()
    rows: list[dict[str, Any]] = [
        {"id": number, "name": f"Straße {number}", "price": number / 7, "tags": ["a", "b"]}
        for number in range(60)
    ]
    before = json.dumps(rows, ensure_ascii=False)
    for _ in range(1000):
        match rng.randrange(5):
            case 0:
                rows.pop(rng.randrange(len(rows)))
            case 1:
                rows.insert(rng.randrange(len(rows) + 1), {"id": rng.random(), "name": "neu ☃"})
            case 2:
                rng.shuffle(rows)
            case _:
                rng.choice(rows)["price"] = rng.random()
        after = json.dumps(rows, ensure_ascii=False)
        yield before.encode(), after.encode()
        before = after


def _binaries(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(500):
        before = rng.randbytes(rng.randrange(1500))
        at, end = sorted(rng.randrange(len(before) + 1) for _ in range(2))
        yield before, before[:at] + rng.randbytes(rng.randrange(200)) + before[end:]


def test_the_sdks_decoders_make_the_same_of_thousands_of_documents() -> None:
    """Both codecs of the JavaScript SDK, for text that is cut into patches as text, and for any bytes."""
    rng = random.Random(23)
    texts, binaries = list(_texts(rng)), list(_binaries(rng))
    lines = [
        json.dumps(
            {
                "base": base64.b64encode(before).decode(),
                "delta": base64.b64encode(create(before, after)).decode(),
                "text": index < len(texts) and _is_json(after),
            }
        )
        for index, (before, after) in enumerate(texts + binaries)
    ]

    done = subprocess.run(
        ["node", str(HERE / "js" / "deltas.mjs")],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines) == 3000
    as_json = 0
    for answer, (_, after) in zip(answers, texts + binaries, strict=True):
        assert "error" not in answer, answer
        assert base64.b64decode(answer["protobuf"]) == after
        if "json" in answer:
            assert base64.b64decode(answer["json"]) == after
            as_json += 1
    assert as_json >= 1000


def _is_json(text: bytes) -> bool:
    """Say whether the JSON codec, which parses what it made, can take it."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
