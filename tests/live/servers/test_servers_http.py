"""HTTP under ``manage.py serve``: the lane's answers, their order, and bad requests."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.live.servers.conftest import RawClient, RunningServer, raw_client


pytestmark = pytest.mark.timeout(120)


def post(path: str, body: bytes = b"{}", *headers: bytes, version: str = "1.1") -> bytes:
    """Return a POST request as bytes."""
    lines = [f"POST {path} HTTP/{version}".encode(), b"host: a", *headers]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def response(client: RawClient) -> tuple[int, dict[str, str], bytes]:
    """Read one response: status, headers and body."""
    head = (await client.head()).decode()
    status = int(head.split(" ", 2)[1])
    fields = (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    headers = {name.lower(): value for name, value in fields}
    return status, headers, await client.exactly(int(headers["content-length"]))


async def test_the_lane_answers_on_the_spot(serve: RunningServer) -> None:
    """Byte for byte but the date, with the connection kept."""
    async with raw_client(serve) as client:
        client.writer.write(post("/api/now?a=b"))
        head = await client.head()

        assert re.sub(rb"date: .*\r\n", b"", head) == (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 19\r\n\r\n"
        )
        assert re.search(rb"date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", head)
        assert await client.exactly(19) == b"lane /api/now a=b 2"
        client.writer.write(post("/api/now"))
        assert (await response(client))[2] == b"lane /api/now  2"


@pytest.mark.parametrize("path", ["/api/pass", "/api/waitpass"])
async def test_what_the_lane_passes_on_goes_through_asgi(serve: RunningServer, path: str) -> None:
    """With its body, also when the lane had to wait before it knew."""
    async with raw_client(serve) as client:
        client.writer.write(post(path, b"x" * 500))

        assert (await response(client))[2] == b"asgi POST %s 500" % path.encode()


@pytest.mark.parametrize("path", ["/api/fail", "/api/waitfail"])
async def test_a_failure_of_the_lane_is_500(serve: RunningServer, path: str) -> None:
    """Without a word of what it was; the connection goes on."""
    async with raw_client(serve) as client:
        client.writer.write(post(path))
        status, _, body = await response(client)
        client.writer.write(post("/api/now"))

        assert (status, body) == (500, b"Internal Server Error")
        assert (await response(client))[0] == 200
    assert "RuntimeError: asked to" in serve.log_text()


PIPELINES = [
    ["/api/now", "/api/now", "/api/now"],
    ["/api/wait", "/api/now", "/slow", "/api/now"],
    ["/slow?wait=0.1", "/api/now", "/api/wait", "/slow"],
    ["/api/waitpass", "/slow?wait=0.05", "/api/pass", "/api/now"],
    ["/api/wait", "/api/waitpass", "/api/fail", "/api/wait", "/slow"],
]


@pytest.mark.parametrize("paths", PIPELINES)
async def test_pipelined_requests_are_answered_in_order(
    serve: RunningServer, paths: list[str]
) -> None:
    """Whoever answers them, at once or later."""
    async with raw_client(serve) as client:
        client.writer.write(b"".join(post(path, b"x" * n) for n, path in enumerate(paths)))
        answers = [await response(client) for _ in paths]

    for number, (path, (status, _, body)) in enumerate(zip(paths, answers, strict=True)):
        if "fail" in path and status == 500:
            continue
        assert status == 200
        assert path.partition("?")[0].encode() in body
        assert body.endswith(b" %d" % number)


async def test_requests_that_come_while_one_waits_keep_their_order(serve: RunningServer) -> None:
    """In reads of their own."""
    async with raw_client(serve) as client:
        for number, path in enumerate(["/api/wait", "/api/now", "/slow"]):
            client.writer.write(post(path, b"x" * number))
            await client.writer.drain()
            await asyncio.sleep(0.005)

        bodies = [(await response(client))[2] for _ in range(3)]

    assert [body[-1:] for body in bodies] == [b"0", b"1", b"2"]


async def test_a_head_that_comes_again_gets_the_same_care(serve: RunningServer) -> None:
    """However the reads cut it: the lane answers known heads without parsing them."""
    known, other = post("/api/now?again", b"12345"), post("/api/now?other", b"123")
    async with raw_client(serve) as client:
        for read, count in [
            (known, 1),
            (known, 1),
            (known + known, 2),
            (known + other, 2),
            (known + known[:-2], 1),
            (known[-2:] + known, 2),
            (known[:-5], 0),
            (known[-5:], 1),
            (known[:30], 0),
            (known[30:], 1),
            (post("/slow?wait=0.05", b"1") + known, 2),
            (known, 1),
        ]:
            client.writer.write(read)
            await client.writer.drain()
            await asyncio.sleep(0.01)
            bodies = [(await response(client))[2] for _ in range(count)]
            assert all(body[-1:] in b"135" for body in bodies)
            assert (
                any(body.endswith(b"/api/now again 5") for body in bodies)
                or count == 0
                or (
                    # Behind another answer that isn't ready it takes the usual way.
                    bodies[-1] == b"asgi POST /api/now 5"
                )
            )
        client.writer.write(known.replace(b"12345", b"1234") + b"x")
        assert (await response(client))[2] == b"lane /api/now again 5"


async def test_a_known_head_that_closes_closes(serve: RunningServer) -> None:
    """What is said once with the same words is said each time."""
    for _ in range(3):
        async with raw_client(serve) as client:
            client.writer.write(post("/api/now", b"x", b"connection: close"))
            _, headers, body = await response(client)

            assert (headers["connection"], body) == ("close", b"lane /api/now  1")
            assert await client.reader.read() == b""


async def test_a_chunked_body_is_joined(serve: RunningServer) -> None:
    """Over several reads."""
    async with raw_client(serve) as client:
        client.writer.write(
            b"POST /api/now HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for chunk in (b"5\r\nhello\r\n", b"3\r\nyou\r\n", b"0\r\n\r\n"):
            client.writer.write(chunk)
            await client.writer.drain()
            await asyncio.sleep(0.005)

        assert (await response(client))[2] == b"lane /api/now  8"


async def test_expect_continue_is_answered_before_the_body(serve: RunningServer) -> None:
    """Or clients like curl wait a second before they send it."""
    request = post("/api/now", b"x" * 10, b"expect: 100-continue")
    async with raw_client(serve) as client:
        client.writer.write(request[:-10])
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(request[-10:])

        assert (await response(client))[2] == b"lane /api/now  10"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/api/now", b"x" * 1001),
        post("/api/now", b"x" * 1001, b"expect: 100-continue")[:-1001],
        b"POST /api/now HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n"
        + b"x" * 1001,
        post("/api/now", b"x" * 3_000_000),
    ],
)
async def test_a_body_over_the_limit_is_413(serve: RunningServer, request_bytes: bytes) -> None:
    """At once, and the response arrives even where the client is still sending."""
    async with raw_client(serve) as client:
        client.writer.write(request_bytes)
        status, headers, _ = await response(client)

        assert (status, headers["connection"]) == (413, "close")
        assert await client.rest() == b""


async def test_a_body_at_the_limit_is_taken(serve: RunningServer) -> None:
    """The limit itself is allowed."""
    async with raw_client(serve) as client:
        client.writer.write(post("/api/now", b"x" * 1000))

        assert (await response(client))[2] == b"lane /api/now  1000"


@pytest.mark.parametrize("path", ["/api/now", "/api/wait"])
@pytest.mark.parametrize(("headers", "version"), [([], "1.0"), ([b"connection: close"], "1.1")])
async def test_a_connection_is_closed_for_clients_that_want_it(
    serve: RunningServer, path: str, headers: list[bytes], version: str
) -> None:
    """HTTP/1.0, and ``Connection: close``."""
    async with raw_client(serve) as client:
        client.writer.write(post(path, b"{}", *headers, version=version))
        _, received, _ = await response(client)

        assert received["connection"] == "close"
        assert await client.rest() == b""


async def test_an_answer_to_head_has_no_body(serve: RunningServer) -> None:
    """But the length that it would have."""
    async with raw_client(serve) as client:
        client.writer.write(b"HEAD /api/now HTTP/1.1\r\nhost: a\r\n\r\n" + post("/api/now"))
        head = await client.head()

        assert b"content-length: 16\r\n" in head
        assert (await response(client))[2] == b"lane /api/now  2"


async def test_what_the_lane_does_not_match_never_reaches_it(serve: RunningServer) -> None:
    """Other paths and other methods are ASGI's."""
    async with raw_client(serve) as client:
        client.writer.write(b"OPTIONS /api/now HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await response(client))[2] == b"asgi OPTIONS /api/now 0"
        client.writer.write(post("/elsewhere"))
        assert (await response(client))[2] == b"asgi POST /elsewhere 2"


async def test_a_client_may_leave_while_its_request_waits(serve: RunningServer) -> None:
    """Nothing is logged, nothing breaks."""
    async with raw_client(serve) as client:
        client.writer.write(post("/api/wait"))
        await client.writer.drain()
    await asyncio.sleep(0.1)

    assert serve.get("/fine").startswith(b"asgi")
    assert "Traceback" not in serve.log_text().rpartition("asked to")[2]


@pytest.mark.parametrize(
    ("request_line", "changes", "status"),
    [
        ("GET", {"Sec-WebSocket-Version": "8"}, 400),
        ("GET", {"Sec-WebSocket-Key": "short"}, 400),
        ("GET", {"Upgrade": None}, 400),
        ("POST", {}, 405),
        ("POST", {"Upgrade": None}, 405),
    ],
)
async def test_a_bad_upgrade_gets_its_status(
    serve: RunningServer, request_line: str, changes: dict[str, str | None], status: int
) -> None:
    """400, and 405 for another method; the paths of WebSockets take nothing else."""
    fields = {
        "Host": "a",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **changes,
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    async with raw_client(serve) as client:
        client.writer.write(
            "\r\n".join([f"{request_line} /connection/echo HTTP/1.1", *lines, "", ""]).encode()
        )

        assert (await response(client))[0] == status


@pytest.mark.parametrize(
    "garbage", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\x00"]
)
async def test_what_is_not_http_gets_400(serve: RunningServer, garbage: bytes) -> None:
    """TLS on a plain port, say."""
    async with raw_client(serve) as client:
        client.writer.write(garbage)

        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_head_without_end_gets_431(serve: RunningServer) -> None:
    """Memory is bounded before anything is known of the request."""
    async with raw_client(serve) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n" + b"x-a: b\r\n" * 100_000)

        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_an_idle_connection_is_closed(start: object) -> None:
    """After the keep-alive time, whoever answered last."""
    server = start("serve", "--keep-alive", "1")  # type: ignore[operator]
    for path in ("/api/now", "/slow"):
        async with raw_client(server) as client:
            client.writer.write(post(path))
            assert (await response(client))[0] == 200

            assert await client.rest(3) == b""
