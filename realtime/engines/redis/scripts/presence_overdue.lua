-- Goes before scripts that read presence: drops the entries that were not refreshed in time.
--
-- KEYS  1 entries (hash), 2 their deadlines (zset), 3 connections by user (hash), 4 deadlines of users (zset)

local function drop_overdue(now, has_users)
  local overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
  for _, client in ipairs(overdue) do
    local info = redis.call('HGET', KEYS[1], client)
    redis.call('HDEL', KEYS[1], client)
    if info and has_users then
      count_down(user_of(info))
    end
  end
  if #overdue > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  end
  if has_users then
    -- Where entries expire as fields nobody counts them down: their users go with their own deadlines.
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now)) do
      redis.call('HDEL', KEYS[3], user)
      redis.call('ZREM', KEYS[4], user)
    end
  end
end

