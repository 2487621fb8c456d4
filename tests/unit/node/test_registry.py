"""Who lives, by what was heard when."""

from __future__ import annotations

import pytest

from realtime.node.control import NodeInfo
from realtime.node.registry import DEAD_AFTER, Registry


def node(uid: str, **facts: object) -> NodeInfo:
    return NodeInfo(uid, f"name of {uid}", "1.0", **facts)  # type: ignore[arg-type]


def listen(registry: Registry, start: float, end: float, *uids: str) -> None:
    """Hear this node and others every 3 seconds, from ``start`` to before ``end``."""
    now = start
    while now < end:
        registry.hear_myself(now)
        for uid in uids:
            registry.hear(node(uid), now)
        now += 3.0


@pytest.fixture
def registry() -> Registry:
    return Registry(0.0)


def names(registry: Registry, now: float) -> list[str]:
    return [each.uid for each in registry.listed(now)]


def test_a_node_is_new_once(registry: Registry) -> None:
    """Its first announcement asks for an answer, the next ones don't."""
    assert registry.hear(node("a"), 0.0)
    assert not registry.hear(node("a"), 3.0)
    assert names(registry, 3.0) == ["a"]


def test_metrics_are_kept_until_fresh_ones_come(registry: Registry) -> None:
    """An announcement without metrics leaves the ones before."""
    registry.hear(node("a", metrics={"x": 1.0}), 0.0)
    registry.hear(node("a", num_clients=5), 3.0)

    (info,) = registry.listed(3.0)

    assert (info.num_clients, info.metrics) == (5, {"x": 1.0})


def test_a_silent_node_is_dead_after_seven_seconds(registry: Registry) -> None:
    """Neither before nor, once it was dealt with, again."""
    listen(registry, 0.0, 4.0, "a", "b")
    listen(registry, 6.0, 13.0, "b")

    assert registry.dead(3.0 + DEAD_AFTER) == []
    assert registry.dead(10.1) == ["a"]
    assert names(registry, 10.1) == ["b"]
    registry.forget("a")
    assert registry.dead(13.0) == []


def test_a_deaf_node_buries_nobody(registry: Registry) -> None:
    """While its own announcements don't come back it lists nobody, and takes nobody for dead."""
    listen(registry, 0.0, 4.0, "a")

    for now in range(4, 60):
        assert registry.dead(float(now)) == []
    assert names(registry, 30.0) == []


def test_silence_counts_from_the_end_of_the_deafness(registry: Registry) -> None:
    """Who was not heard because nothing was gets its seven seconds again; who stays silent then is dead."""
    listen(registry, 0.0, 4.0, "a", "b")
    listen(registry, 30.0, 31.0)
    registry.hear(node("b"), 32.0)
    listen(registry, 33.0, 40.0, "b")

    assert registry.dead(37.0) == []
    assert registry.dead(37.1) == ["a"]


@pytest.mark.parametrize("start", [3.0, 3.5, 4.0, 5.0, 5.9])
def test_no_deafness_makes_a_living_node_dead(start: float) -> None:
    """Wherever a deaf time lies between announcements, a node that announces itself all the time is not buried."""
    for tenths in range(1, 250):
        end = start + tenths / 10
        registry = Registry(0.0)
        for tick in range(400):
            now = tick / 10
            is_deaf = start <= now < end
            if tick % 30 == 0 and not is_deaf:
                registry.hear_myself(now)
            if tick % 30 == 29 and not is_deaf:
                registry.hear(node("a"), now)
            assert registry.dead(now) == [], (start, end, now)


def test_a_loss_on_the_bus_gives_time_again(registry: Registry) -> None:
    """The bus says that it lost something: what was not heard may have been said."""
    listen(registry, 0.0, 1.0, "a")
    listen(registry, 3.0, 13.0)
    registry.lose(6.5)

    assert registry.dead(7.5) == []
    assert registry.dead(13.4) == []
    assert registry.dead(13.6) == ["a"]


@pytest.mark.parametrize(
    ("gap", "is_away"), [(3.0, False), (6.0, False), (6.6, True), (60.0, True)]
)
def test_a_node_knows_when_others_may_have_buried_it(
    registry: Registry, gap: float, is_away: bool
) -> None:
    """It did not hear itself for as long as the others wait."""
    registry.hear_myself(1.0)

    assert registry.hear_myself(1.0 + gap) is is_away
    assert registry.hear_myself(4.0 + gap) is False


def test_a_leaving_node_is_not_listed_and_dies_when_silent(registry: Registry) -> None:
    """What it left behind is removed then; until it is silent it removes its own."""
    listen(registry, 0.0, 1.0, "a")

    assert registry.leave("a", 2.0)
    assert not registry.leave("a", 5.0)
    assert names(registry, 5.0) == []
    listen(registry, 3.0, 16.0)
    assert registry.dead(12.0) == []
    assert registry.dead(12.1) == ["a"]


def test_the_farewell_of_an_unknown_node_is_nothing(registry: Registry) -> None:
    """It was never here, so nobody has to clean up after it."""
    assert not registry.leave("a", 0.0)
    assert names(registry, 0.0) == []
