"""Generations of versions, direct publishes, kept values, deltas and hints."""

from __future__ import annotations

import asyncio
import itertools
import random

import msgspec
import pytest

from realtime import commands
from realtime.namespaces.options import SharedPollOptions
from realtime.node.polls.figures import PollFigures
from realtime.node.polls.notices import QUEUE_SIZE, NoticeQueue
from realtime.node.polls.plan import plan_of
from realtime.protocol import fossil
from realtime.protocol.api_messages import SharedPollPublishRequest
from realtime.protocol.errors import BadRequestError, NotAvailableError, UnknownChannelError
from realtime.proxies.shared_poll import PolledItem, SharedPollRefreshResult
from tests.unit.node.timers import settle


def value(data, version=1, key="btc", **more):
    return {"data": data, "key": key, "version": version, **more}


LOST = {"channel": "versions:a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}


async def publish(node, channel, key, data, version, epoch=""):
    request = SharedPollPublishRequest(
        channel, key, msgspec.Raw(msgspec.json.encode(data)), version=version, epoch=epoch
    )
    await commands.shared_poll_publish(node, request)


async def test_another_epoch_sends_everybody_to_begin_anew(follow, application, timers):
    """They resubscribe, learn the epoch, and start from version 0."""
    application.epoch = "one"
    application.values["btc"] = ({"p": 1}, 5)
    follower = follow()
    assert "epoch" not in follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0})
    await timers.advance(0)
    assert follower.pushes() == [LOST]

    assert follower.subscribe("versions:a")["epoch"] == "one"
    follower.track("versions:a", {"btc": 0})
    await timers.advance(0)
    assert follower.pushes() == [value({"p": 1}, 5)]

    application.epoch = "two"
    application.values["btc"] = ({"p": 2}, 1)
    await timers.advance(10)
    assert follower.pushes() == [LOST]
    assert follower.subscribe("versions:a")["epoch"] == "two"
    follower.track("versions:a", {"btc": 0})
    await timers.advance(0)
    assert follower.pushes() == [value({"p": 2}, 1)]


async def test_the_epoch_outlives_the_polling(follow, application, timers, node):
    """Else who comes back to a channel that was forgotten would subscribe twice, with no delay for ever."""
    application.epoch = "one"
    application.values["btc"] = ({"p": 1}, 5)
    follower = follow()
    follower.subscribe("hurried:a")
    follower.track("hurried:a", {"btc": 0})
    await timers.advance(0)
    assert node.polls.num_channels == 0
    follower.pushes()

    assert follower.subscribe("hurried:a")["epoch"] == "one"
    follower.track("hurried:a", {"btc": 0})
    await timers.advance(0)

    assert follower.pushes() == [value({"p": 1}, 5)]


async def test_who_was_told_another_epoch_is_sent_to_learn_it(follow, application, timers):
    """It subscribed before the application named one, and tracks afterwards."""
    application.epoch = "one"
    application.values["btc"] = ({"p": 1}, 5)
    first, second = follow(), follow()
    first.subscribe("versions:a")
    second.subscribe("versions:a")
    first.track("versions:a", {"btc": 0})
    await timers.advance(0)

    reply = second.track("versions:a", {"btc": 0})

    assert reply["sub_refresh"] == {}
    assert second.pushed + second.pushes() == [LOST]


async def test_a_versionless_epoch_is_the_polling_s(follow, timers):
    """A channel that is polled anew has another one, so the SDK begins at 0."""
    follower = follow()
    before = follower.subscribe("plain:a")["epoch"]
    follower.send(unsubscribe={"channel": "plain:a"})
    await timers.advance(10)

    assert follower.subscribe("plain:a")["epoch"] != before


async def test_a_publish_reaches_who_tracks_the_key(follow, application, timers, node):
    """At once; the next cycle need not ask for it, the one after does."""
    application.values["btc"] = ({"p": 1}, 1)
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("versions:a")
    first.track("versions:a", {"btc": 0})
    second.track("versions:a", {"eth": 0})
    await timers.advance(0)
    first.pushes()
    application.take_calls()

    await publish(node, "versions:a", "btc", {"p": 2}, 2)

    assert first.pushes() == [value({"p": 2}, 2)]
    assert second.pushes() == []
    application.values["btc"] = ({"p": 2}, 2)
    await timers.advance(10)
    assert application.take_calls() == [{"eth": 0}]
    await timers.advance(10)
    assert application.take_calls() == [{"btc": 2, "eth": 0}]


async def test_an_old_publish_is_dropped_in_silence(follow, application, timers, node):
    """Nobody goes back."""
    application.values["btc"] = ({"p": 1}, 5)
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0})
    await timers.advance(0)
    follower.pushes()

    for version in (5, 4):
        await publish(node, "versions:a", "btc", {"p": 0}, version)
    await publish(node, "versions:a", "nobody's", {"p": 0}, 1)

    assert follower.pushes() == []
    assert node.polls.figures.stale_publishes == 2


async def test_a_publish_s_epoch_counts_too(follow, timers, node):
    """Its value is told with it."""
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0})

    await publish(node, "versions:a", "btc", {"p": 1}, 1, "one")
    assert follower.pushes() == [LOST]
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0})
    await publish(node, "versions:a", "btc", {"p": 2}, 2, "one")

    assert follower.pushes() == [value({"p": 2}, 2, epoch="one")]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"channel": ""}, BadRequestError),
        ({"key": ""}, BadRequestError),
        ({"version": 0}, BadRequestError),
        ({"b64data": "%"}, BadRequestError),
        ({"channel": "chat"}, BadRequestError),
        ({"channel": "nothing:a"}, UnknownChannelError),
        ({"channel": "plain:a"}, NotAvailableError),
    ],
)
async def test_what_cannot_be_published(node, changes, error):
    """By the namespace and the request."""
    facts = {"channel": "versions:a", "key": "k", "data": msgspec.Raw(b"1"), "version": 1}

    with pytest.raises(error):
        await commands.shared_poll_publish(node, SharedPollPublishRequest(**facts | changes))


async def test_an_application_behind_its_own_publishes_is_not_believed(
    follow, application, timers, node
):
    """A version is never told with the value of another one."""
    application.values["btc"] = ({"p": 5}, 5)
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("versions:a")
    first.track("versions:a", {"btc": 0})
    await timers.advance(0)
    await publish(node, "versions:a", "btc", {"p": 7}, 7)
    first.pushes()

    second.track("versions:a", {"btc": 0})
    await timers.advance(10)
    assert second.pushes() == []
    application.values["btc"] = ({"p": 7}, 7)
    await timers.advance(10)

    assert second.pushes() == [value({"p": 7}, 7)]
    assert first.pushes() == []


async def test_keys_are_left_at_the_broker_when_nobody_tracks_them(follow, timers, node):
    """With the next round of housekeeping; who comes back until then costs nothing."""
    follower = follow()
    follower.subscribe("versions:a")
    follower.track("versions:a", {"btc": 0, "eth": 0})
    assert len(node.polls.feeds.joined) == 2
    follower.untrack("versions:a", "btc", "eth")
    follower.track("versions:a", {"eth": 0})

    await node.polls.tidy()

    assert node.polls.feeds.joined == {"\0" + "10:versions:aeth"}


async def test_kept_values_are_in_the_reply(follow, application, timers):
    """In versioned mode; nobody is asked, and nothing is pushed after it."""
    application.values.update(btc=({"p": 1}, 5), eth=({"p": 9}, 2))
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("keptversions:a")
    first.track("keptversions:a", {"btc": 0, "eth": 0})
    await timers.advance(0)
    application.take_calls()

    reply = second.track("keptversions:a", {"btc": 3, "eth": 2})
    await timers.advance(0)

    assert reply["sub_refresh"] == {"items": [value({"p": 1}, 5)]}
    assert application.take_calls() == []
    assert second.pushes() == []


async def test_kept_values_without_versions_are_pushed_at_once(follow, application, timers):
    """After the reply."""
    application.values["btc"] = ({"p": 1}, 0)
    first, second = follow(), follow()
    for each in (first, second):
        each.subscribe("kept:a")
    first.track("kept:a", {"btc": 0})
    await timers.advance(0)
    application.take_calls()

    assert second.track("kept:a", {"btc": 0})["sub_refresh"] == {}

    assert second.pushes() == [value({"p": 1})]
    await timers.advance(0)
    assert application.take_calls() == []


DOCUMENT = {"words": [f"word {number}" for number in range(40)], "n": 0}


async def test_deltas_are_made_for_who_has_the_value_before(follow, application, timers):
    """The first value is whole, the next ones are patches; who negotiated nothing gets plain values."""
    application.values["btc"] = (DOCUMENT, 0)
    first, late, plain = follow(), follow(), follow()
    assert first.subscribe("kept:a", delta="fossil")["delta"] is True
    late.subscribe("kept:a", delta="fossil")
    plain.subscribe("kept:a")
    for each in (first, plain):
        each.track("kept:a", {"btc": 0})
    await timers.advance(0)
    (whole,) = first.pushes()
    assert whole["data"] == msgspec.json.encode(DOCUMENT).decode()
    assert plain.pushes() == [value(DOCUMENT)]
    late.track("kept:a", {"btc": 1})

    application.values["btc"] = (DOCUMENT | {"n": 1}, 0)
    await timers.advance(10)

    (patched,) = first.pushes()
    assert patched["delta"] is True
    assert patched["version"] == 2
    target = fossil.apply(whole["data"].encode(), patched["data"].encode())
    assert msgspec.json.decode(target) == DOCUMENT | {"n": 1}
    assert len(patched["data"]) < len(whole["data"]) / 4
    # It has version 1 by its own word, but was sent nothing by this connection.
    (again_whole,) = late.pushes()
    assert "delta" not in again_whole
    assert plain.pushes() == [value(DOCUMENT | {"n": 1}, 2)]

    application.values["btc"] = (DOCUMENT | {"n": 2}, 0)
    await timers.advance(10)
    assert [each["delta"] for each in first.pushes() + late.pushes()] == [True, True]


async def test_who_claims_a_version_that_it_was_not_sent_gets_no_patch(follow, application, timers):
    """It may have the value from elsewhere, and no base."""
    application.values["btc"] = (DOCUMENT, 1)
    follower = follow()
    follower.subscribe("keptversions:a", delta="fossil")
    follower.track("keptversions:a", {"btc": 0})
    await timers.advance(0)
    follower.pushes()
    follower.track("keptversions:a", {"btc": 2})
    for number in (2, 3, 4):
        application.values["btc"] = (DOCUMENT | {"n": number}, number)
        await timers.advance(10)

    assert [(each["version"], "delta" in each) for each in follower.pushes()] == [
        (3, False),
        (4, True),
    ]


async def test_the_application_may_bring_the_value_before(follow, timers, node):
    """Then a node that keeps nothing makes patches, too."""
    texts = [msgspec.Raw(msgspec.json.encode(DOCUMENT | {"n": n})) for n in range(3)]

    class Relay:
        def __init__(self):
            self.version = 1

        async def refresh(self, request):
            now = self.version
            item = PolledItem(
                "btc",
                texts[now - 1],
                now,
                prev_data=texts[now - 2] if now > 1 else msgspec.Raw(b""),
            )
            return SharedPollRefreshResult([item])

    relay = Relay()
    follower = follow()
    node.polls.find_backend = lambda _name: relay
    follower.subscribe("versions:a", delta="fossil")
    follower.track("versions:a", {"btc": 0})
    await timers.advance(0)
    (whole,) = follower.pushes()
    relay.version = 2
    await timers.advance(10)

    (patched,) = follower.pushes()
    assert patched["delta"] is True
    target = fossil.apply(whole["data"].encode(), patched["data"].encode())
    assert msgspec.json.decode(target) == DOCUMENT | {"n": 1}


def notice(*keys, channel="plain:a"):
    items = [{"channel": channel, "key": key} for key in keys]
    return msgspec.json.encode({"items": items})


async def test_a_hint_has_its_keys_asked_for_at_once(follow, application, timers, node):
    """Those that somebody tracks here, together."""
    application.values.update(a=("x", 0), b=("y", 0))
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"a": 0, "b": 0, "c": 0})
    await timers.advance(1)
    follower.pushes()
    application.take_calls()
    application.values["a"] = ("z", 0)

    node.polls.on_notice(notice("a", "b", "unknown"))
    node.polls.on_notice(notice("a", channel="plain:other"))
    node.polls.on_notice(b"no notification")
    await timers.advance(0)

    assert application.take_calls() == [{"a": 0, "b": 0}]
    assert follower.pushes() == [value("z", 3, "a")]


async def test_hints_are_batched_by_size_and_time(follow, application, timers, node):
    """Whichever is reached first."""
    follower = follow()
    follower.subscribe("batched:a")
    keys = [f"k{number}" for number in range(4)]
    follower.track("batched:a", dict.fromkeys(keys, 0))
    await timers.advance(0)
    application.take_calls()

    node.polls.on_notice(notice("k0", "k1", channel="batched:a"))
    await timers.advance(1.9)
    assert application.take_calls() == []
    await timers.advance(0.1)
    assert [set(call) for call in application.take_calls()] == [{"k0", "k1"}]
    node.polls.on_notice(notice("k0", "k1", "k0", "k2", "k3", channel="batched:a"))
    await timers.advance(0)
    assert [set(call) for call in application.take_calls()] == [{"k0", "k1", "k2"}]


async def test_a_batch_that_never_fills_is_asked_for_after_an_interval(
    follow, application, timers, node
):
    """A size without a delay has one all the same."""
    follower = follow()
    follower.subscribe("sized:a")
    follower.track("sized:a", {"k": 0})
    await timers.advance(1)
    application.take_calls()
    node.polls.on_notice(notice("k", channel="sized:a"))

    await timers.advance(8)
    assert application.take_calls() == []
    await timers.advance(3)

    assert application.take_calls() == [{"k": 0}, {"k": 0}]


async def test_hints_without_room_are_dropped_and_counted(follow, timers, node, application):
    """The cycle finds what they were about."""
    figures, asked = PollFigures(), []
    queue = NoticeQueue(plan_of(SharedPollOptions(), 0, 5.0), timers, figures, asked.append)

    for number in range(QUEUE_SIZE + 3):
        queue.add(str(number))
    await timers.advance(5)

    assert figures.dropped_notices == 3
    assert [len(keys) for keys in asked] == [QUEUE_SIZE]


async def test_figures_are_shown_in_info(follow, application, timers, node):
    """By Centrifugo's names, as far as there are numbers."""
    application.values["btc"] = ({"p": 1}, 0)
    follower = follow()
    follower.subscribe("plain:a")
    follower.track("plain:a", {"btc": 0})
    await timers.advance(0)

    counters = node._counters()

    assert node._gauges()["centrifugo.shared_poll.num_keys"] == 1.0
    assert counters["centrifugo.shared_poll.items_count.result.changed"] == 1.0
    assert counters["centrifugo.shared_poll.handler_duration_seconds.count.trigger.cold"] == 1.0
    assert counters["centrifugo.broadcast.publications_delivered"] == 1.0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("namespace", ["plain", "kept", "versions", "keptversions"])
async def test_whatever_happens_everybody_shows_the_application_s_values(
    follow, application, timers, node, seed, namespace
):
    """Followers come, go, drop, come back with what they have; calls are slow or fail; at the end all agree."""
    chance = random.Random(seed)
    channel = f"{namespace}:a"
    is_versioned = "versions" in namespace
    application.epoch = "e0" if is_versioned else ""
    keys = [f"k{number}" for number in range(6)]
    versions, epochs = itertools.count(1), itertools.count(1)
    shown = [Shown(follow, channel, chance) for _ in range(8)]

    def change(key):
        application.values[key] = (
            {"n": chance.randrange(10**6), "pad": "x" * 80},
            next(versions) if is_versioned else 0,
        )

    for key in keys:
        change(key)
    for _ in range(120):
        one = chance.choice(shown)
        action = chance.choice(
            [
                "change",
                "change",
                "time",
                "time",
                "track",
                "untrack",
                "reconnect",
                "fail",
                "work",
                "slow",
                "publish",
                "epoch",
                "hint",
            ]
        )
        if action == "change":
            change(chance.choice(keys))
        elif action == "time":
            await timers.advance(chance.choice([0, 0.5, 3, 10]))
        elif action == "track":
            one.track(chance.sample(keys, chance.randint(1, 4)))
        elif action == "untrack":
            one.untrack(chance.sample(keys, 2))
        elif action == "reconnect":
            one.reconnect()
        elif action in ("fail", "work"):
            application.is_down = action == "fail"
        elif action == "slow":
            if application.gate is None:
                application.gate = asyncio.Event()
            else:
                application.gate.set()
                application.gate = None
        elif action == "publish" and is_versioned:
            key = chance.choice(keys)
            change(key)
            data, version = application.values[key]
            await publish(node, channel, key, data, version, application.epoch)
        elif action == "epoch" and is_versioned and chance.random() < 0.2:
            application.epoch = f"e{next(epochs)}"
            versions = itertools.count(1)
            for key in keys:
                change(key)
        elif action == "hint":
            node.polls.on_notice(notice(chance.choice(keys), channel=channel))
        await settle()
        for each in shown:
            each.read()
    application.is_down = False
    if application.gate is not None:
        application.gate.set()
        application.gate = None
    for _ in range(4):
        await timers.advance(10)
        for each in shown:
            each.read()

    for each in shown:
        for key in each.versions:
            assert each.values.get(key) == application.values[key][0], (key, each.versions)
    assert any(each.versions for each in shown)


class Shown:
    """What an SDK shows: it counts versions, applies patches, comes back with what it has."""

    def __init__(self, follow, channel, chance):
        self._follow = follow
        self._channel = channel
        self._delta = chance.choice(["", "fossil"])
        self.versions = {}
        self.values = {}
        self._bases = {}
        self._epoch = ""
        self.reconnect(is_first=True)

    def reconnect(self, is_first=False):
        if not is_first:
            self._follower.connection.client.on_close()
        self._follower = self._follow()
        self._subscribe()

    def _subscribe(self):
        more = {"delta": self._delta} if self._delta else {}
        epoch = self._follower.subscribe(self._channel, **more).get("epoch", "")
        if self._epoch and self._epoch != epoch:
            self.versions = dict.fromkeys(self.versions, 0)
        self._epoch = epoch
        if self.versions:
            self._send(dict(self.versions))

    def track(self, keys):
        for key in keys:
            self.versions.setdefault(key, 0)
        self._send({key: self.versions[key] for key in keys})

    def _send(self, versions):
        reply = self._follower.track(self._channel, versions)
        for item in (reply or {}).get("sub_refresh", {}).get("items", ()):
            self._take(item)
        self._judge([each.get("pub") or each for each in self._follower.pushed])

    def untrack(self, keys):
        for key in keys:
            self.versions.pop(key, None)
            self.values.pop(key, None)
        self._follower.untrack(self._channel, *keys)

    def read(self):
        self._judge(self._follower.pushes())

    def _judge(self, pushes):
        for pushed in pushes:
            if "unsubscribe" in pushed:
                assert pushed["unsubscribe"]["code"] == 2500
                self._subscribe()
                return
            self._take(pushed)

    def _take(self, pushed):
        key = pushed["key"]
        known = self.versions.get(key, 0)
        if known and pushed["version"] <= known:
            return
        data = pushed["data"]
        if self._delta:
            text = data.encode()
            if pushed.get("delta"):
                text = fossil.apply(self._bases[key], text)
            self._bases[key] = text
            data = msgspec.json.decode(text)
        if key in self.versions:
            self.versions[key] = pushed["version"]
            self.values[key] = data
