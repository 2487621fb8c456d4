-- Read a channel's position and its whole list (newest first), in one step.
--
-- KEYS  1 list, 2 its record (hash)
-- ARGV  1 "1" if publications are wanted, 2 TTL of the record in ms ("0" none), 3 epoch for a new record,
--       4 server as the connection knows it
-- Returns top offset, epoch, entries, and how far the epochs before are good (see above).

local list, meta = KEYS[1], KEYS[2]
local record = redis.call('HMGET', meta, 's', 'e', 'i', 'p')
local epoch, before = record[2], record[4]
if not epoch then
  epoch = ARGV[3]
  redis.call('HSET', meta, 'e', epoch, 'i', ARGV[4])
  -- Left over from a record that was lost.
  redis.call('DEL', list)
else
  local ends
  epoch, ends = go_on(meta, epoch, record[3], ARGV[4], ARGV[3])
  before = ends or before
end
if ARGV[2] ~= '0' then
  redis.call('PEXPIRE', meta, ARGV[2])
else
  redis.call('PERSIST', meta)
end

local entries = {}
if ARGV[1] == '1' then
  entries = redis.call('LRANGE', list, 0, -1)
end
return {tonumber(record[1] or '0'), epoch, entries, before or ''}
