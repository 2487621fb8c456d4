"""Deadlines that many share."""

from __future__ import annotations

from realtime.node.ticker import Waitlist
from tests.unit.node.timers import FakeTimers


async def test_who_is_still_there_is_late_and_told_once() -> None:
    """In their order; those who left are not."""
    loop, late = FakeTimers(), []
    waitlist: Waitlist[str] = Waitlist(40, late.append)
    for name in "abc":
        waitlist.add(name, loop)
    await loop.advance(20)
    waitlist.discard("b")
    waitlist.add("d", loop)
    assert late == []

    await loop.advance(20)
    assert late == ["a", "c"]
    await loop.advance(19)
    assert late == ["a", "c"]
    await loop.advance(40 / 8)
    assert late == ["a", "c", "d"]
    assert len(waitlist) == 0


async def test_whom_the_late_one_takes_along_is_not_told() -> None:
    """The call may change the list."""
    loop, late = FakeTimers(), []

    def on_late(name: str) -> None:
        late.append(name)
        waitlist.discard("b")
        waitlist.add("again", loop)

    waitlist: Waitlist[str] = Waitlist(20, on_late)
    waitlist.add("a", loop)
    waitlist.add("b", loop)
    await loop.advance(20)

    assert late == ["a"]
    waitlist.stop()
    await loop.advance(100)
    assert late == ["a"]
