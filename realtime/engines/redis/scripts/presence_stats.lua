-- Count the presence entries and their users, where users are counted.
--
-- KEYS  as above
-- ARGV  1 now in Unix seconds
-- Returns the numbers of connections and of users.

drop_overdue(ARGV[1], true)
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[3])}
