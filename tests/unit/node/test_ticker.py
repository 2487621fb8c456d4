"""Deadlines that many share."""

from __future__ import annotations

import asyncio

from realtime.node.ticker import Waitlist


async def test_who_is_still_there_is_late_and_told_once() -> None:
    """In their order; those who left are not."""
    loop, late = asyncio.get_running_loop(), []
    waitlist: Waitlist[str] = Waitlist(0.04, late.append)
    for name in "abc":
        waitlist.add(name, loop)
    await asyncio.sleep(0.02)
    waitlist.discard("b")
    waitlist.add("d", loop)
    assert late == []

    await asyncio.sleep(0.03)
    assert late == ["a", "c"]
    await asyncio.sleep(0.05)
    assert late == ["a", "c", "d"]
    assert len(waitlist) == 0


async def test_whom_the_late_one_takes_along_is_not_told() -> None:
    """The call may change the list."""
    loop, late = asyncio.get_running_loop(), []

    def on_late(name: str) -> None:
        late.append(name)
        waitlist.discard("b")
        waitlist.add("again", loop)

    waitlist: Waitlist[str] = Waitlist(0.02, on_late)
    waitlist.add("a", loop)
    waitlist.add("b", loop)
    await asyncio.sleep(0.035)

    assert late == ["a"]
    waitlist.stop()
    await asyncio.sleep(0.03)
    assert late == ["a"]
