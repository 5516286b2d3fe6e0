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
  local id, text = rev .. '-0', string.format('%.0f', number)
  -- A rev that the log has or has passed is refused by XADD: not appended twice, published all the same,
  -- under the number it has there. Any other error is the caller's: a delivery may not be heard of that
  -- the log will never have.
  local appended = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], id, 'n', text, 'p', payload)
  local refusal = type(appended) == 'table' and appended.err
  -- What stands there and is no log is of no use to anybody; left there, it would hold up the room for ever.
  local is_no_log = refusal and string.find(refusal, 'WRONGTYPE', 1, true)
  if is_no_log then
    redis.call('DEL', log)
  end
  if not appended or is_no_log then
    -- What a log begins after was published before it: an entry without a payload says until when.
    if rev ~= '1' then
      redis.call('XADD', log, string.format('%.0f-0', rev - 1), 'n', string.format('%.0f', number - 1), 'p', '')
    end
    appended = redis.pcall('XADD', log, id, 'n', text, 'p', payload)
    refusal = type(appended) == 'table' and appended.err
  end
  if refusal and not string.find(refusal, 'equal or smaller', 1, true) then
    failed = failed or appended
  else
    if refusal then
      local there = redis.call('XRANGE', log, id, id)
      text = there[1] and there[1][2][4] ~= '' and there[1][2][2] or '0'
    end
    redis.call('PEXPIRE', log, ARGV[3])
    local numbered = numbers and '\0' .. struct.pack('>I8', tonumber(text)) or ''
    redis.call(ARGV[1], channel, numbered .. payload)
  end
end
return failed or count
