-- Numbers deliveries, appends each to its room's log and publishes it.
-- KEYS: a log for each, then the last number given (none on a cluster, where nothing is numbered). ARGV: the command
-- that publishes, entries to keep, time to live in ms, then of each: rev, payload, channel.
-- Numbers grow with every delivery of this server and never come twice, whatever became of its data:
-- they are the server's time in microseconds, or one more than the last one. They are taken before they are used.
local count = (#ARGV - 3) / 3
local numbers = KEYS[count + 1]
local number = 0
if numbers then
  local time = redis.call('TIME')
  number = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', numbers)) or 0) + 1) - 1
  redis.call('SET', numbers, string.format('%.0f', number + count))
end
local failed
for at = 1, count do
  local log, rev, payload, channel = KEYS[at], ARGV[1 + 3 * at], ARGV[2 + 3 * at], ARGV[3 + 3 * at]
  number = number + 1
  local id = rev .. '-0'
  -- What stands there and is no log is of no use to anybody; left there, it would hold up the room for ever.
  local kind = redis.call('TYPE', log).ok
  if kind ~= 'none' and kind ~= 'stream' then
    redis.call('DEL', log)
    kind = 'none'
  end
  -- What a log begins after was published before it: an entry without a payload says until when.
  if rev ~= '1' and kind == 'none' then
    redis.call('XADD', log, string.format('%.0f-0', rev - 1), 'n', string.format('%.0f', number - 1), 'p', '')
  end
  local text = string.format('%.0f', number)
  -- A rev that the log has or has passed is refused by XADD: not appended twice, published all the same,
  -- under the number it has there. Any other error is the caller's: a delivery may not be heard of that
  -- the log will never have.
  local appended = redis.pcall('XADD', log, 'MAXLEN', '~', ARGV[2], id, 'n', text, 'p', payload)
  local is_known = type(appended) == 'table' and appended.err
  if is_known and not string.find(appended.err, 'equal or smaller', 1, true) then
    failed = failed or appended
  else
    if is_known then
      local there = redis.call('XRANGE', log, id, id)
      text = there[1] and there[1][2][4] ~= '' and there[1][2][2] or '0'
    end
    redis.call('PEXPIRE', log, ARGV[3])
    local numbered = numbers and '\0' .. struct.pack('>I8', tonumber(text)) or ''
    redis.call(ARGV[1], channel, numbered .. payload)
  end
end
return failed or count
