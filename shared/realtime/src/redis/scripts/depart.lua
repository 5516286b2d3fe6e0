-- A device is gone. Answers 1 if it was the user's last one.
-- KEYS and ARGV as in arrive.lua. A device that another session holds by now stays; one that is not
-- known any more (wiped) still counts as gone.
redis.call('SET', ARGV[6] .. ARGV[4], ARGV[5], 'PX', ARGV[9])
local holder = redis.call('HGET', KEYS[1], ARGV[2])
if holder and holder ~= ARGV[3] .. '@' .. ARGV[4] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[2])
for _, other in ipairs(redis.call('HVALS', KEYS[1])) do
  local gateway = string.match(other, '@(.*)$')
  if gateway and redis.call('EXISTS', ARGV[6] .. gateway) == 1 then return 0 end
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], 'left', ARGV[5])
if redis.call('HGET', KEYS[3], 'status') ~= 'invisible' then redis.call('HSET', KEYS[3], 'seen', ARGV[5]) end
redis.call('PEXPIRE', KEYS[3], ARGV[8])
return 1
