-- Write a key of a map and tell it, in one step.
--
-- KEYS  1 to 7 as above, 8 remembered result (hash; left out without an idempotency key)
-- ARGV  1 key, 2 payload, 3 and 4 what stands before (behind the offset) and behind it in the value, 5 head of the message,
--       6 rules, 7 TTL of the key in ms ("0" none), 8 epoch for a new record,
--       9 PUBLISH, SPUBLISH or "" for neither, 10 PUB/SUB channel, 11 the map's channel, 12 TTL of the result in ms,
--       13 "if_new", "if_exists" or "", 14 "1" if a key that is there shall live on then,
--       15 offset that the key must have ("" any) and 16 epoch of that, 17 version ("0" none), 18 version epoch,
--       19 "1" if the value before is wanted, 20 server
-- Returns offset, epoch, and 0, or why nothing was written: 1 a repeated key, 2 a stale version, 3 the key is there,
-- 4 it is not, 5 it has another position; then its value follows, "" where it has none.

-- Versions have 64 bits and Lua's numbers 53: compare the digits.
local function is_newer(version, stored)
  if #version ~= #stored then
    return #version > #stored
  end
  return version > stored
end

-- Give the key a new deadline; the index has none that is later than the map's first.
local function let_live(key)
  if ARGV[7] == '0' then
    redis.call('ZREM', deadlines, key)
    return
  end
  local time = redis.call('TIME')
  local at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[7])
  redis.call('ZADD', deadlines, at, key)
  redis.call('ZADD', index, 'LT', at, ARGV[11])
end

local key, result, mode, version = ARGV[1], KEYS[8], ARGV[13], ARGV[17]
local epoch, top, epochs_before = open(ARGV[6], ARGV[8])
local known = remembered(result, epoch, epochs_before)
if known then
  return known
end

if version ~= '0' then
  local stored = redis.call('HGET', versions, key)
  if stored then
    local number, version_epoch = string.match(stored, '^(%d+):(.*)$')
    if (ARGV[18] == '' or ARGV[18] == version_epoch) and not is_newer(version, number) then
      return {top, epoch, 2}
    end
  end
end

local before
if mode ~= '' or ARGV[15] ~= '' or ARGV[19] == '1' then
  before = redis.call('HGET', state, key)
end
if mode == 'if_new' and before then
  if ARGV[14] == '1' then
    let_live(key)
  end
  return {top, epoch, 3}
elseif mode == 'if_exists' and not before then
  return {top, epoch, 4}
end
if ARGV[15] ~= '' and not is_expected(before, epoch, ARGV[15], ARGV[16]) then
  return {top, epoch, 5, before or ''}
end

local offset = 0
local body = ARGV[3] .. ARGV[2] .. ARGV[4]
if epoch ~= '' then
  offset = append(key, 'd', body)
end
if redis.call('HSET', state, key, struct.pack('>I8', offset) .. body) == 1 then
  redis.call('ZADD', order, 0, key)
  if epoch ~= '' then
    redis.call('PERSIST', record)
  end
end
if version ~= '0' then
  redis.call('HSET', versions, key, version .. ':' .. ARGV[18])
end
let_live(key)
remember(result, offset, epoch, ARGV[12])

local tail = ''
if epoch ~= '' then
  tail = position(offset, epoch)
end
if ARGV[19] == '1' then
  local previous = before and struct.pack('>BI4', 198, #before) .. before or '\192'
  tail = tail .. '\165delta\195\168previous' .. previous
end
tell(ARGV[9], ARGV[10], ARGV[5] .. ARGV[2] .. tail)
return {offset, epoch, 0}
