-- Remove a key of a map and tell it, in one step.
--
-- KEYS  1 to 7 as above, 8 remembered result (hash; left out without an idempotency key)
-- ARGV  1 key, 2 tags of the removal ("" those of the key), 3 head of the message, 4 the time in the stream, 5 rules,
--       6 epoch for a new record, 7 PUBLISH, SPUBLISH or "" for neither, 8 PUB/SUB channel, 9 TTL of the result in ms,
--       10 offset that the key must have ("" any) and 11 epoch of that, 12 server
-- Returns as above.

local key, result = ARGV[1], KEYS[8]
local epoch, top, epochs_before = open(ARGV[5], ARGV[6])
local known = remembered(result, epoch, epochs_before)
if known then
  return known
end
local value = redis.call('HGET', state, key)
if ARGV[10] ~= '' and not is_expected(value, epoch, ARGV[10], ARGV[11]) then
  return {top, epoch, 5, value or ''}
elseif not value then
  return {top, epoch, 4}
end
local offset = take(key, value, ARGV[2], epoch, ARGV[3], ARGV[4], ARGV[7], ARGV[8])
if epoch ~= '' then
  arm()
end
remember(result, offset, epoch, ARGV[9])
return {offset, epoch, 0}
