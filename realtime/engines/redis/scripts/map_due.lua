-- Say which maps may have keys that are due.
--
-- KEYS  1 index of the maps that have deadlines (zset)
-- ARGV  1 how many at most
-- Returns channels.

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
