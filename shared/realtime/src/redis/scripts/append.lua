-- Appends a delivery to its room's log and publishes it.
-- KEYS: the log. ARGV: entry id (<rev>-0), payload, channel, entries to keep, time to live in ms.
-- A rev that the log has or has passed is refused by XADD: not appended twice, published all the same.
-- Any other error is the caller's: a delivery may not be heard of that the log will never have.
local appended = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], ARGV[1], 'p', ARGV[2])
if type(appended) == 'table' and appended.err and not string.find(appended.err, 'equal or smaller', 1, true) then
  return appended
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return redis.call('PUBLISH', ARGV[3], ARGV[2])
