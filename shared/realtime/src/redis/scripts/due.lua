-- Answers 1 to the one who shall run the janitor now. KEYS: the stamp of the last run.
-- ARGV: now in ms, least time between two runs in ms, the stamp's time to live in ms.
local last = redis.call('GET', KEYS[1])
if last and math.abs(tonumber(ARGV[1]) - tonumber(last)) < tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
