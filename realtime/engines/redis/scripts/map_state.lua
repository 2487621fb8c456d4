-- Read a map's position and some of its keys, in one step.
--
-- KEYS  1 to 7 as above
-- ARGV  1 rules, 2 epoch for a new record, 3 "key", "page", "all" or "" for none, 4 the key, or the last one of the page
--       before, 5 size of the page, 6 server
-- Returns top offset, epoch, 1 if there are more, and key, value, key, value, ...

local epoch, top = open(ARGV[1], ARGV[2])
if epoch ~= '' then
  arm()
end
if ARGV[3] == 'all' then
  return {top, epoch, 0, redis.call('HGETALL', state)}
end
local found = {}
if ARGV[3] == 'key' then
  local value = redis.call('HGET', state, ARGV[4])
  if value then
    found = {ARGV[4], value}
  end
  return {top, epoch, 0, found}
elseif ARGV[3] == '' then
  return {top, epoch, 0, found}
end

local first = ARGV[4] == '' and '-' or '(' .. ARGV[4]
local size = tonumber(ARGV[5])
local keys = redis.call('ZRANGEBYLEX', order, first, '+', 'LIMIT', 0, size + 1)
local has_more = keys[size + 1] and 1 or 0
keys[size + 1] = nil
-- unpack() has room for some 8000.
for from = 1, #keys, 1000 do
  local part = {unpack(keys, from, math.min(from + 999, #keys))}
  for place, value in ipairs(redis.call('HMGET', state, unpack(part))) do
    if value then
      found[#found + 1] = part[place]
      found[#found + 1] = value
    end
  end
end
return {top, epoch, has_more, found}
