-- Goes before scripts about maps: a map's record, which has its epoch and its top, and how long it lives.
--
-- KEYS  1 state (hash of values), 2 its keys in order (zset), 3 deadlines of keys (zset), 4 versions of keys (hash),
--       5 record (hash), 6 stream, 7 index of the maps that have deadlines (zset)
--
-- A value is 8 bytes of offset, 8 of time, 4 of the size of the tags, the tags in msgpack, and the rest.
-- Rules are "<size of the stream>:<its TTL>:<TTL of the record>" in ms, and a size of 0 is a map without a stream: its
-- epoch is "". The record has them, too, for those who remove what is due.
--
-- The last of ARGV is the server as the connection knows it (see above).

local state, order, deadlines, versions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record, stream, index = KEYS[5], KEYS[6], KEYS[7]
local stream_size, stream_ttl, record_ttl

local function take_rules(rules)
  stream_size, stream_ttl, record_ttl = string.match(rules, '^(%d+):(%d+):(%d+)$')
end

-- Return epoch and top as whoever touches the map finds them, and how far the epochs before are good.
local function open(rules, new_epoch)
  take_rules(rules)
  local known = redis.call('HMGET', record, 'e', 's', 'r', 'i', 'p')
  if stream_size == '0' then
    if known[1] then
      -- From now on changes have no offsets: nobody may go on from here where there are some again.
      redis.call('UNLINK', record, stream, versions)
    end
    return '', 0
  end
  if not known[1] then
    -- Left over from a record that was lost, or from before there was a stream.
    redis.call('UNLINK', state, order, deadlines, versions, stream)
    redis.call('HSET', record, 'e', new_epoch, 's', 0, 'r', rules, 'i', ARGV[#ARGV])
    if record_ttl ~= '0' then
      redis.call('PEXPIRE', record, record_ttl)
    end
    return new_epoch, 0
  end
  if known[3] ~= rules then
    redis.call('HSET', record, 'r', rules)
  end
  local epoch, before = go_on(record, known[1], known[4], ARGV[#ARGV], new_epoch)
  return epoch, tonumber(known[2]), before or known[5]
end

-- Start the record's clock, which stands still while there are keys: what expires is told in the stream.
local function arm()
  if record_ttl == '0' or redis.call('EXISTS', state) == 1 then
    redis.call('PERSIST', record)
  else
    redis.call('PEXPIRE', record, record_ttl)
  end
end
