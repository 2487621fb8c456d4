-- Remove keys of a map that are due and tell it, in one step. Several may do so at once: what one has removed the other
-- does not find.
--
-- KEYS  1 to 7 as above
-- ARGV  1 the map's channel, 2 how many keys at most, 3 head of the messages, 4 the time in the stream,
--       5 PUBLISH, SPUBLISH or "" for neither, 6 PUB/SUB channel, 7 epoch for a map that another server had, 8 server
-- Returns how many were removed, and 1 if there are more.

local known = redis.call('HMGET', record, 'e', 'r', 'i')
local epoch = known[1] and go_on(record, known[1], known[3], ARGV[8], ARGV[7]) or ''
take_rules(known[2] or '0:0:0')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = 0
for _, key in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])) do
  local value = redis.call('HGET', state, key)
  if value then
    take(key, value, '', epoch, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
    removed = removed + 1
  else
    redis.call('ZREM', deadlines, key)
  end
end
if removed > 0 and epoch ~= '' then
  arm()
end
local first = redis.call('ZRANGE', deadlines, 0, 0, 'WITHSCORES')
if not first[1] then
  redis.call('ZREM', index, ARGV[1])
  return {removed, 0}
end
redis.call('ZADD', index, first[2], ARGV[1])
return {removed, tonumber(first[2]) <= now and 1 or 0}
