-- Forget a map, if it has the epoch that the caller means; the next touch makes a new one.
--
-- KEYS  1 state, 2 its keys in order, 3 deadlines, 4 versions, 5 record, 6 stream, 7 index of the maps that have deadlines
-- ARGV  1 the map's channel, 2 epoch ("" any)
-- Returns 1 if it was forgotten.

if ARGV[2] ~= '' and redis.call('HGET', KEYS[5], 'e') ~= ARGV[2] then
  return 0
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
redis.call('ZREM', KEYS[7], ARGV[1])
return 1
