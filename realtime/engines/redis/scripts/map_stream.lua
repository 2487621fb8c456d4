-- Read a map's position and a part of its stream, in one step.
--
-- KEYS  1 to 7 as above
-- ARGV  1 rules, 2 epoch for a new record, 3 "1" if changes are wanted, 4 first id, 5 limit ("0" none), 6 "1" downwards,
--       7 server
-- Returns top offset, epoch, entries as XRANGE has them, and how far the epochs before are good (see above).

local epoch, top, before = open(ARGV[1], ARGV[2])
arm()
local entries = {}
if ARGV[3] == '1' then
  local command, last = 'XRANGE', '+'
  if ARGV[6] == '1' then
    command, last = 'XREVRANGE', '-'
  end
  if ARGV[5] == '0' then
    entries = redis.call(command, stream, ARGV[4], last)
  else
    entries = redis.call(command, stream, ARGV[4], last, 'COUNT', ARGV[5])
  end
end
return {top, epoch, entries, before or ''}
