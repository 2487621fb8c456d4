-- Name a presence entry in the set of the node that makes it.
--
-- KEYS  1 the node's entries (set)
-- ARGV  1 the entry's name, 2 TTL in ms

redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
