-- Numbers a delivery, appends it to its room's log and publishes it.
-- KEYS: the log, the last number given (none on a cluster, where nothing is numbered). ARGV: rev, payload,
-- channel, entries to keep, time to live in ms, the command that publishes.
-- Numbers grow with every delivery of this server and never come twice, whatever became of its data:
-- they are the server's time in microseconds, or one more than the last one.
local number = 1
if KEYS[2] then
  local time = redis.call('TIME')
  number = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', KEYS[2])) or 0) + 1)
end
local id = ARGV[1] .. '-0'
-- What stands there and is no log is of no use to anybody; left there, it would hold up the room for ever.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
  redis.call('DEL', KEYS[1])
  kind = 'none'
end
-- What a log begins after was published before it: an entry without a payload says until when.
if ARGV[1] ~= '1' and kind == 'none' then
  redis.call('XADD', KEYS[1], string.format('%.0f-0', ARGV[1] - 1), 'n', string.format('%.0f', number - 1), 'p', '')
end
local text = string.format('%.0f', number)
-- A rev that the log has or has passed is refused by XADD: not appended twice, published all the same,
-- under the number it has there. Any other error is the caller's: a delivery may not be heard of that
-- the log will never have.
local appended = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], id, 'n', text, 'p', ARGV[2])
if type(appended) == 'table' and appended.err then
  if not string.find(appended.err, 'equal or smaller', 1, true) then return appended end
  local there = redis.call('XRANGE', KEYS[1], id, id)
  text = there[1] and there[1][2][4] ~= '' and there[1][2][2] or '0'
elseif KEYS[2] then
  redis.call('SET', KEYS[2], text)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local numbered = KEYS[2] and '\0' .. struct.pack('>I8', tonumber(text)) or ''
return redis.call(ARGV[6], ARGV[3], numbered .. ARGV[2])
