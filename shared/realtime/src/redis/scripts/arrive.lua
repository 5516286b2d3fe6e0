-- A device is connected. Answers 1 if its user was offline before, and the live session whose place
-- it takes, if another held the device.
-- KEYS: the user's socket hash, online:users, the user's presence hash.
-- ARGV: user, device, session, gateway, now in ms, prefix of gateway leases,
--       times to live of socket hash, presence hash and lease in ms.
redis.call('SET', ARGV[6] .. ARGV[4], ARGV[5], 'PX', ARGV[9])
local live = 0
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local gateway = string.match(held[i + 1], '@(.*)$')
  if gateway and redis.call('EXISTS', ARGV[6] .. gateway) == 1 then
    live = live + 1
  else
    redis.call('HDEL', KEYS[1], held[i])
  end
end
local was_online = live > 0 and redis.call('ZSCORE', KEYS[2], ARGV[1])
local holder = redis.call('HGET', KEYS[1], ARGV[2])
local session, gateway = false, false
if holder then session, gateway = string.match(holder, '^(.*)@(.*)$') end
if session == ARGV[3] then session = false end
-- On one gateway the newer session has the larger id, whichever arrives first.
if session and gateway == ARGV[4] and session > ARGV[3] then return {0, false} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. '@' .. ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('ZADD', KEYS[2], 'GT', ARGV[5], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[8])
return {was_online and 0 or 1, session or false}
