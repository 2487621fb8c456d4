"""What things are called in Redis, and where they are."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from realtime.engines.redis.keys import Naming, group_of, shard_of


CHANNELS = st.text(min_size=1, max_size=40)


@given(CHANNELS)
def test_one_shard_has_everything(channel):
    """There is no other."""
    assert shard_of(channel, 1) == 0


@given(CHANNELS, st.integers(1, 20))
def test_one_shard_more_takes_channels_and_gives_none_away(channel, count):
    """A channel stays where it is, or moves to the new one."""
    assert shard_of(channel, count + 1) in {shard_of(channel, count), count}


def test_channels_spread_evenly():
    """Within a tenth, over five shards."""
    counts = [0] * 5
    for number in range(10_000):
        counts[shard_of(f"channel:{number}", 5)] += 1

    assert all(1800 < count < 2200 for count in counts)


@given(CHANNELS)
def test_a_group_is_a_name_that_a_layer_takes(channel):
    """ASCII, and short enough with any prefix in front."""
    group = group_of(channel)

    assert group.isascii()
    assert group.isalnum()
    assert len(group) == 32


@pytest.mark.parametrize("is_cluster", [False, True])
@given(CHANNELS, CHANNELS)
def test_no_two_channels_share_a_key(is_cluster, one, other):
    """Whatever they are called."""
    naming = Naming("p", is_cluster=is_cluster)
    if one != other:
        ours, theirs = naming.channel(one), naming.channel(other)
        assert not set(_keys(ours)) & set(_keys(theirs))


@pytest.mark.parametrize("name", ["meta.x", ".meta.x", "x", ".x", "..x", "meta.meta.x"])
def test_all_keys_of_a_channel_differ(name):
    """And those of channels whose names look like keys."""
    names = ["meta.x", ".meta.x", "x", ".x", "..x", "meta.meta.x"]
    others = {key for other in names if other != name for key in _keys(Naming("p").channel(other))}
    own = _keys(Naming("p").channel(name))

    assert len(set(own)) == len(own)
    assert not others & set(own)


@given(CHANNELS)
def test_in_a_cluster_all_names_of_a_channel_have_its_tag(channel):
    """So that one script may touch them and publish; braces in the channel's own name do not matter."""
    keys = Naming("p", is_cluster=True).channel(channel)
    tag = b"{%b}" % keys.group.encode()

    for key in (*_keys(keys), keys.result_of("k"), keys.group_channel):
        assert key.index(b"{") == key.index(tag)


def _keys(keys):
    return [
        keys.stream,
        keys.stream_meta,
        keys.list,
        keys.list_meta,
        keys.presence,
        keys.presence_expire,
        keys.presence_users,
        keys.presence_users_expire,
    ]
