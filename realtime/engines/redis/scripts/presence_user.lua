-- Goes before scripts about presence: whose entry an info is.

-- An info is Protobuf; its first field, if it has one, is the user.
local function user_of(info)
  if string.byte(info, 1) ~= 10 then
    return ''
  end
  local size, scale, at = 0, 1, 2
  local byte = string.byte(info, at)
  while byte >= 128 do
    size, scale, at = size + (byte - 128) * scale, scale * 128, at + 1
    byte = string.byte(info, at)
  end
  size = size + byte * scale
  return string.sub(info, at + 1, at + size)
end

-- One connection of the user fewer, in KEYS[3] (connections by user) and KEYS[4] (deadlines of users).
local function count_down(user)
  if redis.call('HINCRBY', KEYS[3], user, -1) <= 0 then
    redis.call('HDEL', KEYS[3], user)
    redis.call('ZREM', KEYS[4], user)
  end
end

