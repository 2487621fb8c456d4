-- Goes before scripts that change maps.

local function text(value)
  local size = #value
  if size < 32 then
    return string.char(160 + size) .. value
  elseif size < 256 then
    return '\217' .. string.char(size) .. value
  elseif size < 65536 then
    return '\218' .. struct.pack('>I2', size) .. value
  end
  return '\219' .. struct.pack('>I4', size) .. value
end

-- What a change with this idempotency key returned; one of an epoch that this one doesn't go on from (`before` has those that
-- it does) is of a map that is no more.
local function remembered(result, epoch, before)
  local known = result and redis.call('HMGET', result, 's', 'e')
  if not known or not known[1] then
    return nil
  end
  if known[2] == epoch or string.find(',' .. (before or ''), ',' .. known[2] .. ':', 1, true) then
    return {tonumber(known[1]), epoch, 1}
  end
end

local function remember(result, offset, epoch, ttl)
  if result then
    redis.call('HSET', result, 's', offset, 'e', epoch)
    redis.call('PEXPIRE', result, ttl)
  end
end

local function is_expected(value, epoch, expected_offset, expected_epoch)
  -- tostring() has 14 digits and would round.
  return value and epoch == expected_epoch and string.format('%.0f', struct.unpack('>I8', value)) == expected_offset
end

local function append(key, kind, body)
  local offset = redis.call('HINCRBY', record, 's', 1)
  redis.call('XADD', stream, 'MAXLEN', stream_size, string.format('%.0f-0', offset), 'k', key, kind, body)
  if stream_ttl ~= '0' then
    redis.call('PEXPIRE', stream, stream_ttl)
  else
    redis.call('PERSIST', stream)
  end
  return offset
end

local function tell(command, channel, message)
  if command ~= '' then
    redis.call(command, channel, message)
  end
end

local function position(offset, epoch)
  return '\166offset\207' .. struct.pack('>I8', offset) .. '\165epoch' .. string.char(160 + #epoch) .. epoch
end

-- Take a key out that has this value, append that and tell it; return the offset.
local function take(key, value, tags, epoch, head, time, command, channel)
  redis.call('HDEL', state, key)
  redis.call('ZREM', order, key)
  redis.call('ZREM', deadlines, key)
  redis.call('HDEL', versions, key)
  if tags == '' then
    tags = string.sub(value, 21, 20 + struct.unpack('>I4', value, 17))
  end
  local count, tail = 5, '\163key' .. text(key) .. '\167removed\195'
  if tags ~= '' then
    count, tail = 6, tail .. '\164tags' .. tags
  end
  local offset = 0
  if epoch ~= '' then
    offset = append(key, 'r', time .. tags)
    count, tail = count + 2, tail .. position(offset, epoch)
  end
  tell(command, channel, string.char(128 + count) .. head .. tail)
  return offset
end
