-- Append one publication to a channel's stream and fan it out, in one step.
--
-- KEYS  1 stream, 2 its record (hash), 3 remembered result (hash; left out without an idempotency key)
-- ARGV  1 payload, 2 and 3 what stands before and behind it in the stored form, 4 head of the message,
--       5 "1" if the publication before is wanted, 6 size, 7 TTL of the stream in ms, 8 TTL of the record in ms ("0" none),
--       9 epoch for a new record, 10 PUBLISH or SPUBLISH, 11 PUB/SUB channel,
--       12 version ("0" none), 13 version epoch, 14 TTL of the result in ms, 15 server as the connection knows it
-- Returns offset, epoch, and 0, or 1 for a repeated key, or 2 for a stale version.

-- Versions have 64 bits and Lua's numbers 53: compare the digits.
local function is_newer(version, stored)
  if #version ~= #stored then
    return #version > #stored
  end
  return version > stored
end

local result = KEYS[3]
if result then
  local known = redis.call('HMGET', result, 's', 'e')
  if known[1] then
    return {tonumber(known[1]), known[2], 1}
  end
end

local stream, meta = KEYS[1], KEYS[2]
local version = ARGV[12]
local epoch, server
if version == '0' then
  local record = redis.call('HMGET', meta, 'e', 'i')
  epoch, server = record[1], record[2]
else
  local record = redis.call('HMGET', meta, 'e', 'v', 've', 's', 'i')
  epoch, server = record[1], record[5]
  if record[2] and (ARGV[13] == '' or ARGV[13] == (record[3] or '')) and not is_newer(version, record[2]) then
    return {tonumber(record[4] or '0'), epoch, 2}
  end
end
if not epoch then
  epoch = ARGV[9]
  redis.call('HSET', meta, 'e', epoch, 'i', ARGV[15])
else
  epoch = go_on(meta, epoch, server, ARGV[15], ARGV[9])
end
if version ~= '0' then
  redis.call('HSET', meta, 'v', version, 've', ARGV[13])
end
local offset = redis.call('HINCRBY', meta, 's', 1)
if ARGV[8] ~= '0' then
  redis.call('PEXPIRE', meta, ARGV[8])
else
  redis.call('PERSIST', meta)
end

local previous = '\192' -- nil
if offset == 1 then
  -- The record was lost and began anew: what the stream still has belongs to another epoch.
  redis.call('DEL', stream)
elseif ARGV[5] == '1' then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if newest[1] then
    local stored = newest[1][2][2]
    previous = struct.pack('>BI4', 198, #stored) .. stored
  end
end

-- tostring() has 14 digits and would round.
redis.call('XADD', stream, 'MAXLEN', ARGV[6], string.format('%.0f-0', offset), 'd', ARGV[2] .. ARGV[1] .. ARGV[3])
redis.call('PEXPIRE', stream, ARGV[7])
if result then
  redis.call('HSET', result, 's', offset, 'e', epoch)
  redis.call('PEXPIRE', result, ARGV[14])
end

local tail = '\166offset\207' .. struct.pack('>I8', offset) .. '\165epoch' .. string.char(160 + #epoch) .. epoch
if ARGV[5] == '1' then
  tail = tail .. '\165delta\195\168previous' .. previous
end
redis.call(ARGV[10], ARGV[11], ARGV[4] .. ARGV[1] .. tail)
return {offset, epoch, 0}
