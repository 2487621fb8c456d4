"""The direct lane's memory of heads: what a caller may is decided by the snapshot in force."""

from __future__ import annotations

import dataclasses

from api.lane import DirectLane
from realtime.namespaces.table import NamespaceTable
from tests.server.api_world import EVERYTHING_KEY, PUBLISH_KEY, make_options, open_world


BODY = b'{"channel":"news","data":1}'


async def test_a_revoked_key_is_refused_on_a_head_that_was_good() -> None:
    """And taken again when a later snapshot has it."""
    async with open_world(make_options()) as world:
        lane = DirectLane(lambda: world.node, world.options.http_api)
        call = lane.open(b"/api/publish", b"", [(b"x-api-key", PUBLISH_KEY.encode())])
        assert call is not None
        assert (await call.answer(BODY)).status == 200
        assert call.is_trusted

        with_keys = world.node.configuration
        world.node.configuration = dataclasses.replace(with_keys, api_keys={})
        assert (await call.answer(BODY)).status == 401
        assert not call.is_trusted

        world.node.configuration = with_keys
        assert (await call.answer(BODY)).status == 200


async def test_another_table_is_in_force_at_once() -> None:
    """What is remembered of a head is who calls, not what the channels are."""
    async with open_world(make_options()) as world:
        lane = DirectLane(lambda: world.node, world.options.http_api)
        call = lane.open(b"/api/publish", b"", [(b"x-api-key", EVERYTHING_KEY.encode())])
        assert call is not None
        body = b'{"channel":"gone:x","data":1}'
        assert b'"code":102' in (await call.answer(body)).body

        options = world.node.table.without_namespace
        world.node.table = NamespaceTable(options, {"gone": options})
        assert (await call.answer(body)).body == b'{"result":{}}'


async def test_a_key_without_the_scope_is_never_trusted() -> None:
    """So that its head is not kept."""
    async with open_world(make_options()) as world:
        lane = DirectLane(lambda: world.node, world.options.http_api)
        call = lane.open(b"/api/info", b"", [(b"x-api-key", PUBLISH_KEY.encode())])
        assert call is not None
        assert (await call.answer(b"{}")).status == 403
        assert not call.is_trusted
