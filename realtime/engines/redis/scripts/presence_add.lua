-- Record or refresh a presence entry.
--
-- KEYS  1 entries (hash), 2 their deadlines (zset), 3 connections by user (hash), 4 deadlines of users (zset),
--       5 the node's entries (set; left out where it is elsewhere)
-- ARGV  1 client, 2 info, 3 user, 4 TTL in ms, 5 deadline in Unix seconds,
--       6 "1" if users are counted, 7 "1" if entries expire as fields of the hash,
--       8 the entry's name in the node's set

if KEYS[5] then
  redis.call('SADD', KEYS[5], ARGV[8])
  redis.call('PEXPIRE', KEYS[5], ARGV[4])
end
local is_new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[7] == '1' then
  redis.call('HPEXPIRE', KEYS[1], ARGV[4], 'FIELDS', 1, ARGV[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[6] == '1' then
  if is_new == 1 then
    redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  redis.call('ZADD', KEYS[4], ARGV[5], ARGV[3])
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
end
return is_new
