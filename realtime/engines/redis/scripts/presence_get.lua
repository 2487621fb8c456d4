-- Read the presence entries.
--
-- KEYS  as above
-- ARGV  1 now in Unix seconds, 2 "1" if users are counted
-- Returns client, info, client, info, ...

drop_overdue(ARGV[1], ARGV[2] == '1')
return redis.call('HGETALL', KEYS[1])
