-- Goes before scripts that give out offsets: whether another server than before has the stream.
--
-- A server that takes over, by a failover or from its own copy on disk, may lack what was published last, and gives those
-- offsets away again. It can't know, so it goes on in an epoch of its own, and the record ("i" is the server) says how far
-- those before are good ("p", as in "newest:7,older:5"): whoever is not beyond that has missed nothing that is not in the
-- stream. An older one is good only as far as each since then was.

local EPOCHS_KEPT = 8

-- Return the epoch to go on in, and if it is a new one, the ends of those before; `named` is the server that the record has, `claimed` what the caller's connection was told.
local function go_on(record, epoch, named, claimed, new_epoch)
  if claimed == named or claimed == '' then
    return epoch
  end
  -- A connection may lead to several servers, or to another one than it did. The answer takes 15 us.
  local info = redis.pcall('INFO', 'server')
  local id = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
  id = id and string.sub(id, 1, 16)
  if not id or id == named then
    return epoch
  end
  if not named or named == '' then
    -- Nothing is known of where the record was until now.
    redis.call('HSET', record, 'i', id)
    return epoch
  end
  local known = redis.call('HMGET', record, 's', 'p')
  local top = tonumber(known[1] or '0')
  local ends = {string.format('%s:%.0f', epoch, top)}
  for older, last in string.gmatch(known[2] or '', '([^:,]+):(%d+)') do
    if #ends < EPOCHS_KEPT then
      ends[#ends + 1] = string.format('%s:%.0f', older, math.min(tonumber(last), top))
    end
  end
  local before = table.concat(ends, ',')
  redis.call('HSET', record, 'e', new_epoch, 'i', id, 'p', before)
  return new_epoch, before
end
