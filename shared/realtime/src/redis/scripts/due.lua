-- Answers 1 to the one who shall run the janitor now. ARGV adds: least time between two runs and the
-- stamp's time to live, in ms.
local last = redis.call('GET', JANITOR)
if last and math.abs(NOW - tonumber(last)) < tonumber(ARGV[9]) then return 0 end
redis.call('SET', JANITOR, NOW, 'PX', ARGV[10])
return 1
