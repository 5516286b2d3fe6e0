-- The number of a new session. KEYS: the last number given.
-- Numbers grow with every session: they are the server's time in microseconds, or one more than the last.
local time = redis.call('TIME')
local number = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', KEYS[1])) or 0) + 1)
local text = string.format('%.0f', number)
redis.call('SET', KEYS[1], text)
return text
