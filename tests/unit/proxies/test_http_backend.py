"""A backend over HTTP: what it is sent, which answers count, and what becomes of its connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

import pytest
from msgspec import Raw
from msgspec.structs import replace

from realtime.conf.options import ProxyHTTPOptions, ProxyOptions, TLSOptions
from realtime.protocol.errors import ConfigError, ProxyError
from realtime.proxies import http_caller
from realtime.proxies.shared_poll import (
    PolledItem,
    PollItem,
    SharedPollRefreshRequest,
    SharedPollRefreshResult,
)
from tests.unit.proxies.backend import open_backend
from tests.unit.servers.certificates import Authority, server_context


REQUEST = SharedPollRefreshRequest("prices:eu", [PollItem("a", 3), PollItem("b")])


def poll(registry, endpoint, headers=None, **options):
    """Configure the default proxy and return it as the node sees it."""
    http = ProxyHTTPOptions(static_headers=headers or {}, tls=options.pop("tls", TLSOptions()))
    proxy = ProxyOptions(endpoint=endpoint, http=http, **options)
    registry.take({"shared_poll_refresh": proxy}, {})
    found = registry.find_shared_poll("default")
    assert found is not None
    return found


async def test_a_request_is_a_compact_post_to_exactly_the_endpoint(registry, backend):
    """Members that are empty are left out, and the content type is ours whatever is configured."""
    backend.answers({"result": {}})
    headers = {"X-Key": "k é", "content-type": "text/plain", "User-Agent": "shop"}

    await poll(registry, backend.url, headers).refresh(REQUEST)

    (request,) = backend.requests
    assert request.head[0] == "POST /poll?a=b%20c HTTP/1.1"
    assert request.body == b'{"channel":"prices:eu","items":[{"key":"a","version":3},{"key":"b"}]}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-key"].encode("latin-1").decode() == "k é"
    assert request.headers["user-agent"] == "shop"


async def test_items_are_handed_over_as_they_stand(registry, backend):
    """Payloads keep their text; unknown members and nulls are skipped."""
    backend.answers(
        b'{"result": {"epoch": "e1", "more": 1, "items": ['
        b'{"key":"a","data":{ "p" : 1.0 },"version":7,"prev_data":[1],"x":{}},'
        b'{"key":"b","removed":true,"version":null,"prev_data":null,"b64data":null},'
        b'{"key":"c","data":null}]}}'
    )

    result = await poll(registry, backend.url).refresh(REQUEST)

    assert result == SharedPollRefreshResult(
        [
            PolledItem("a", Raw(b'{ "p" : 1.0 }'), 7, prev_data=Raw(b"[1]")),
            PolledItem("b", removed=True),
            PolledItem("c", Raw(b"null")),
        ],
        "e1",
    )


async def test_base64_wins_and_may_be_anything(registry, backend):
    """Payloads for clients that are all binary."""
    backend.answers(
        {"result": {"items": [{"key": "a", "data": 1, "b64data": "AP8=", "b64prev_data": "AA=="}]}}
    )

    result = await poll(registry, backend.url).refresh(REQUEST)

    assert result.items == [PolledItem("a", Raw(b"\x00\xff"), prev_data=Raw(b"\x00"))]


@pytest.mark.parametrize("body", [b"{}", b'{"result":null}', b'{"result":{}}', b'{"error":null}'])
async def test_no_result_is_no_news(registry, backend, body):
    """Nothing is changed."""
    backend.answers(body)

    assert await poll(registry, backend.url).refresh(REQUEST) == SharedPollRefreshResult()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'{"result":{}}', "201 Created", "status 201, expected 200"),
        (b"", "204 No Content", "status 204"),
        (b"", "500 Internal Server Error", "status 500"),
        (b"", "302 Found", "status 302"),
        (b"<html>", "200 OK", "no JSON object"),
        (b'{"result":', "200 OK", "no JSON object"),
        (b"", "200 OK", "no JSON object"),
        (b"[]", "200 OK", "no JSON object"),
        (b'"text"', "200 OK", "no JSON object"),
        (b'{"result":[]}', "200 OK", "the result is no JSON object"),
        (b'{"result":{"items":{}}}', "200 OK", "the result is no JSON object"),
        (b'{"result":{"items":[{"key":1}]}}', "200 OK", r"items\[0\]\.key"),
        (b'{"result":{"items":[{"version":-1}]}}', "200 OK", r"items\[0\]\.version"),
        (b'{"result":{"items":[{"b64data":"!"}]}}', "200 OK", "base64"),
        (b'{"error":{"code":-1}}', "200 OK", "no JSON object"),
    ],
)
async def test_what_is_no_answer_is_a_failure(registry, backend, figures, body, status, told):
    """It is counted, and nothing of the body is in the text."""
    backend.answers(body, status, "Location: /elsewhere")

    with pytest.raises(ProxyError, match=told):
        await poll(registry, backend.url).refresh(REQUEST)

    assert len(backend.requests) == 1
    labels = "name.default.protocol.http.type.shared_poll_refresh"
    assert figures.counters()[f"centrifugo.proxy.errors.{labels}"] == 1


async def test_a_null_answer_is_an_empty_one(registry, backend):
    """As Go's decoder takes it."""
    backend.answers(b"null")

    assert await poll(registry, backend.url).refresh(REQUEST) == SharedPollRefreshResult()


async def test_an_error_of_the_application_loses_the_cycle_and_is_no_failure_of_the_proxy(
    registry, backend, figures
):
    """It wins over a result; a disconnect has nobody to end."""
    backend.answers(
        {
            "result": {"items": [{"key": "a"}]},
            "error": {"code": 500, "message": "later", "temporary": True},
            "disconnect": {"code": 4500, "reason": "no"},
        }
    )

    with pytest.raises(ProxyError, match=r"answered error 500: 'later'"):
        await poll(registry, backend.url).refresh(REQUEST)

    labels = "name.default.protocol.http.type.shared_poll_refresh"
    counters = figures.counters()
    assert counters[f"centrifugo.proxy.errors.{labels}"] == 0
    assert counters[f"centrifugo.proxy.duration_seconds.count.{labels}"] == 1
    assert counters[f"centrifugo.proxy.duration_seconds.sum.{labels}"] > 0


async def test_text_that_is_not_utf_8_does_not_reach_clients(registry, backend):
    """A text frame with it would make every browser hang up."""
    backend.answers(b'{"result":{"items":[{"key":"a","data":"\xff"}]}}')

    result = await poll(registry, backend.url).refresh(REQUEST)

    assert bytes(result.items[0].data) == '"\ufffd"'.encode()


async def test_the_timeout_holds_for_the_whole_call(registry, backend, figures):
    """Also when bytes come, one now and then; the connection is given up."""

    async def dribble(exchange):
        exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not exchange.writer.is_closing():
            exchange.writer.write(b" ")
            await exchange.writer.drain()
            await asyncio.sleep(0.01)

    backend.reply = dribble

    with pytest.raises(ProxyError, match=r"no answer within 0\.1s"):
        await poll(registry, backend.url, timeout=0.1).refresh(REQUEST)

    await asyncio.wait_for(backend.all_closed.wait(), 30)
    labels = "name.default.protocol.http.type.shared_poll_refresh"
    assert figures.gauges() == {f"centrifugo.proxy.inflight_requests.{labels}": 0}


async def test_a_backend_that_is_away_is_a_failure(registry):
    """Nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/"

        with pytest.raises(ProxyError, match="the call failed: Connection refused"):
            await poll(registry, endpoint).refresh(REQUEST)


async def test_a_name_that_does_not_resolve_is_a_failure(registry):
    """The reserved domain has no hosts."""
    with pytest.raises(ProxyError, match="the call failed"):
        await poll(registry, "http://backend.invalid/", timeout=5).refresh(REQUEST)


async def test_an_answer_has_a_largest_size(registry, backend, monkeypatch):
    """It is held in memory; compressed ones count as what they become."""
    monkeypatch.setattr(http_caller, "MAX_ANSWER_BYTES", 1000)
    padded = json.dumps({"result": {}, "x": "x" * 2000}).encode()
    proxy = poll(registry, backend.url)
    for body, headers in ((padded, ()), (gzip.compress(padded), ("Content-Encoding: gzip",))):
        backend.answers(body, "200 OK", *headers)

        with pytest.raises(ProxyError, match="more than 1000 bytes"):
            await proxy.refresh(REQUEST)


async def test_a_compressed_answer_is_read(registry, backend):
    """As Go's client does."""
    body = gzip.compress(b'{"result":{"epoch":"e"}}')
    backend.answers(body, "200 OK", "Content-Encoding: gzip")

    assert (await poll(registry, backend.url).refresh(REQUEST)).epoch == "e"


async def test_a_large_request_arrives_whole(registry, backend):
    """Thousands of long keys."""
    backend.answers({"result": {}})
    items = [PollItem("k" * 1000 + str(number)) for number in range(1500)]

    await poll(registry, backend.url).refresh(SharedPollRefreshRequest("c:c", items))

    assert len(json.loads(backend.requests[0].body)["items"]) == 1500


# --- connections --------------------------------------------------------------------------------


async def test_a_connection_is_used_again(registry, backend):
    """One after the other they take one, at the same time each has its own."""
    backend.answers({"result": {}})
    proxy = poll(registry, backend.url)

    for _ in range(5):
        await proxy.refresh(REQUEST)
    assert backend.connections == 1

    reached = asyncio.Barrier(3)

    async def together(exchange):
        await reached.wait()
        exchange.answer({"result": {}})

    backend.reply = together
    await asyncio.gather(*(proxy.refresh(REQUEST) for _ in range(3)))
    assert backend.connections == 3


async def test_a_call_that_is_lost_with_an_idle_connection_is_sent_again(registry, backend):
    """The server gave it up in the moment that it was used; once more, and no more often."""
    proxy = poll(registry, backend.url)
    backend.answers({"result": {}})
    await proxy.refresh(REQUEST)

    async def hang_up_first(exchange):
        if len(backend.requests) == 2:
            exchange.writer.close()
        else:
            exchange.answer({"result": {"epoch": "again"}})

    backend.reply = hang_up_first
    assert (await proxy.refresh(REQUEST)).epoch == "again"
    assert len(backend.requests) == 3

    async def hang_up(exchange):
        exchange.writer.close()

    backend.reply = hang_up
    with pytest.raises(ProxyError, match="the call failed"):
        await proxy.refresh(REQUEST)
    assert len(backend.requests) == 5


async def test_no_cookie_is_remembered(registry, backend):
    """The calls of a node are those of many users."""
    backend.answers({"result": {}}, "200 OK", "Set-Cookie: a=b")
    proxy = poll(registry, backend.url)

    await proxy.refresh(REQUEST)
    await proxy.refresh(REQUEST)

    assert "cookie" not in backend.requests[1].headers


async def test_a_cancelled_call_lets_go_and_counts_as_no_error(registry, backend, figures):
    """Whoever asked does not want to know any more."""
    entered = asyncio.Event()

    async def wait(exchange):
        entered.set()
        await asyncio.sleep(30)

    backend.reply = wait
    call = asyncio.create_task(poll(registry, backend.url, timeout=30).refresh(REQUEST))
    await asyncio.wait_for(entered.wait(), 30)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    labels = "name.default.protocol.http.type.shared_poll_refresh"
    assert figures.counters()[f"centrifugo.proxy.errors.{labels}"] == 0
    assert figures.gauges()[f"centrifugo.proxy.inflight_requests.{labels}"] == 0


# --- TLS ----------------------------------------------------------------------------------------


async def test_a_private_authority_is_believed_where_it_is_configured(registry):
    """And nowhere else; ``server_name`` is who the certificate has to name."""
    authority = Authority()
    certificate = authority.issue("backend.internal")
    async with open_backend(server_context(certificate)) as backend:
        backend.answers({"result": {"epoch": "e"}})
        right = TLSOptions(
            enabled=True, server_ca_pem=authority.pem, server_name="backend.internal"
        )

        assert (await poll(registry, backend.url, tls=right).refresh(REQUEST)).epoch == "e"

        for wrong in (
            TLSOptions(),
            TLSOptions(enabled=True, server_name="backend.internal"),
            replace(right, server_name=""),
            replace(right, server_ca_pem=Authority().pem),
        ):
            with pytest.raises(ProxyError, match="the certificate is not accepted"):
                await poll(registry, backend.url, tls=wrong).refresh(REQUEST)

        careless = TLSOptions(enabled=True, insecure_skip_verify=True)
        assert (await poll(registry, backend.url, tls=careless).refresh(REQUEST)).epoch == "e"


async def test_a_client_certificate_is_shown(registry):
    """To a backend that wants one."""
    authority = Authority()
    context = server_context(authority.issue("127.0.0.1"), client_ca=authority.pem)
    own = authority.issue("tidewire")
    async with open_backend(context) as backend:
        backend.answers({"result": {"epoch": "e"}})
        tls = TLSOptions(
            enabled=True, server_ca_pem=authority.pem, cert_pem=own.cert_pem, key_pem=own.key_pem
        )

        assert (await poll(registry, backend.url, tls=tls).refresh(REQUEST)).epoch == "e"

        with pytest.raises(ProxyError, match="the call failed"):
            await poll(registry, backend.url, tls=replace(tls, cert_pem="", key_pem="")).refresh(
                REQUEST
            )


async def test_certificates_that_are_none_are_the_operators_mistake(registry):
    """The path is named, and what was there goes on."""
    before = poll(registry, "http://127.0.0.1:1/")

    with pytest.raises(ConfigError, match=r"channel\.proxy\.shared_poll_refresh\.http\.tls"):
        poll(registry, "https://127.0.0.1:1/", tls=TLSOptions(enabled=True, server_ca_pem="no"))

    assert registry.find_shared_poll("default") is before
