-- Read a channel's position and a part of its stream, in one step.
--
-- KEYS  1 stream, 2 its record (hash)
-- ARGV  1 "1" if publications are wanted, 2 first id, 3 limit ("0" none), 4 "1" downwards,
--       5 TTL of the record in ms ("0" none), 6 epoch for a new record, 7 server as the connection knows it
-- Returns top offset, epoch, entries as XRANGE has them, and how far the epochs before are good (see above).

local stream, meta = KEYS[1], KEYS[2]
local record = redis.call('HMGET', meta, 's', 'e', 'i', 'p')
local epoch, before = record[2], record[4]
if not epoch then
  epoch = ARGV[6]
  redis.call('HSET', meta, 'e', epoch, 'i', ARGV[7])
  -- Left over from a record that was lost.
  redis.call('DEL', stream)
else
  local ends
  epoch, ends = go_on(meta, epoch, record[3], ARGV[7], ARGV[6])
  before = ends or before
end
if ARGV[5] ~= '0' then
  redis.call('PEXPIRE', meta, ARGV[5])
else
  redis.call('PERSIST', meta)
end

local entries = {}
if ARGV[1] == '1' then
  local command, last = 'XRANGE', '+'
  if ARGV[4] == '1' then
    command, last = 'XREVRANGE', '-'
  end
  if ARGV[3] == '0' then
    entries = redis.call(command, stream, ARGV[2], last)
  else
    entries = redis.call(command, stream, ARGV[2], last, 'COUNT', ARGV[3])
  end
end
return {tonumber(record[1] or '0'), epoch, entries, before or ''}
