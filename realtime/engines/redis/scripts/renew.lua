-- End a channel's stream if it still has the epoch that the caller means; the next touch makes a new one.
--
-- KEYS  1 stream, 2 its record (hash)
-- ARGV  1 epoch
-- Returns 1 if it was ended.

if redis.call('HGET', KEYS[2], 'e') ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
