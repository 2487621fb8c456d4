-- Append one publication to a channel's list (newest first) and fan it out, in one step.
--
-- KEYS  1 list, 2 its record (hash), 3 remembered result (hash; left out without an idempotency key)
-- ARGV  1 payload, 2 and 3 what stands before and behind it in the stored form, 4 head of the message,
--       5 "1" if the publication before is wanted, 6 size, 7 TTL of the list in ms, 8 TTL of the record in ms ("0" none),
--       9 epoch for a new record, 10 PUBLISH or SPUBLISH, 11 PUB/SUB channel, 12 TTL of the result in ms,
--       13 server as the connection knows it
-- Returns offset, epoch, and 0, or 1 for a repeated key.

local result = KEYS[3]
if result then
  local known = redis.call('HMGET', result, 's', 'e')
  if known[1] then
    return {tonumber(known[1]), known[2], 1}
  end
end

local list, meta = KEYS[1], KEYS[2]
local record = redis.call('HMGET', meta, 'e', 'i')
local epoch = record[1]
if not epoch then
  epoch = ARGV[9]
  redis.call('HSET', meta, 'e', epoch, 'i', ARGV[13])
else
  epoch = go_on(meta, epoch, record[2], ARGV[13], ARGV[9])
end
local offset = redis.call('HINCRBY', meta, 's', 1)
if ARGV[8] ~= '0' then
  redis.call('PEXPIRE', meta, ARGV[8])
else
  redis.call('PERSIST', meta)
end

local previous = '\192' -- nil
if offset == 1 then
  -- The record was lost and began anew: what the list still has belongs to another epoch.
  redis.call('DEL', list)
elseif ARGV[5] == '1' then
  local newest = redis.call('LINDEX', list, 0)
  if newest then
    local stored = string.sub(newest, string.find(newest, '__', 5, true) + 2)
    previous = struct.pack('>BI4', 198, #stored) .. stored
  end
end

redis.call('LPUSH', list, string.format('__p1:%.0f:%s__', offset, epoch) .. ARGV[2] .. ARGV[1] .. ARGV[3])
redis.call('LTRIM', list, 0, ARGV[6] - 1)
redis.call('PEXPIRE', list, ARGV[7])
if result then
  redis.call('HSET', result, 's', offset, 'e', epoch)
  redis.call('PEXPIRE', result, ARGV[12])
end

local tail = '\166offset\207' .. struct.pack('>I8', offset) .. '\165epoch' .. string.char(160 + #epoch) .. epoch
if ARGV[5] == '1' then
  tail = tail .. '\165delta\195\168previous' .. previous
end
redis.call(ARGV[10], ARGV[11], ARGV[4] .. ARGV[1] .. tail)
return {offset, epoch, 0}
