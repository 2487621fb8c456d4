"""Channel locks: one at a time per channel, and nothing is kept afterwards."""

from __future__ import annotations

import asyncio

import pytest

from realtime.node.locks import ChannelLocks


async def test_users_of_one_channel_take_turns_and_of_others_do_not_wait():
    """A newcomer waits for the same lock as those who waited before it came."""
    locks, active, most = ChannelLocks(), 0, 0

    async def use(channel):
        nonlocal active, most
        async with locks.of(channel):
            active += 1
            most = max(most, active)
            await asyncio.sleep(0)
            active -= 1

    first = [asyncio.create_task(use("a")) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(*first, *(use("a") for _ in range(3)))
    assert most == 1

    await asyncio.gather(use("a"), use("b"))
    assert most == 2
    assert len(locks) == 0


async def test_a_failure_leaves_no_lock_behind():
    """Whatever ends the block."""
    locks = ChannelLocks()

    with pytest.raises(ValueError, match="x"):
        async with locks.of("a"):
            raise ValueError("x")

    assert len(locks) == 0


async def test_a_waiter_that_is_cancelled_loses_its_turn_and_nobody_elses():
    """Before its turn has come, and in the moment that it came."""
    locks, order = ChannelLocks(), []

    async def use(name):
        async with locks.of("a"):
            order.append(name)

    async with locks.of("a"):
        tasks = [asyncio.create_task(use(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert order == ["c", "d"]
    assert len(locks) == 0
