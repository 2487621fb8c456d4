-- Fan out a publication that enters no stream, unless its idempotency key is known.
--
-- KEYS  1 remembered result (hash)
-- ARGV  1 message, 2 PUBLISH or SPUBLISH, 3 PUB/SUB channel, 4 TTL of the result in ms
-- Returns offset, epoch (of the publish that is remembered; empty if it entered no stream either), and 0, or 1 for a
-- repeated key.

local known = redis.call('HMGET', KEYS[1], 's', 'e')
if known[1] or known[2] then
  return {tonumber(known[1] or '0'), known[2] or '', 1}
end
redis.call('HSET', KEYS[1], 's', 0, 'e', '')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call(ARGV[2], ARGV[3], ARGV[1])
return {0, '', 0}
