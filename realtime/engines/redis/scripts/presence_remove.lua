-- Forget a presence entry.
--
-- KEYS  1 entries (hash), 2 their deadlines (zset), 3 connections by user (hash), 4 deadlines of users (zset),
--       5 the node's entries (set; left out where it is elsewhere)
-- ARGV  1 client, 2 "1" if users are counted, 3 the entry's name in the node's set
-- Returns the info, or nothing when there was none.

if KEYS[5] then
  redis.call('SREM', KEYS[5], ARGV[3])
end
local info = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if not info then
  return false
end
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[2] == '1' then
  count_down(user_of(info))
end
return info
