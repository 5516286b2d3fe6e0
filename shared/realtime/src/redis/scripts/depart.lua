-- A device is gone. A device that another session holds by now stays; one that is not known any more
-- (wiped) still counts as gone.
-- ARGV adds: user, device, session, gateway, for how long the others do not notice (ms).
local user, device, session, gateway = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local socket, presence = SOCKET .. user, PRESENCE .. user
renew(gateway)
local holder = redis.call('HGET', socket, device)
if holder and holder ~= session .. '@' .. gateway then return 1 end
redis.call('HDEL', socket, device)
redis.call('HDEL', presence, 'idle:' .. device)
local left, idle = purge(user)
if left > 0 then
  if settle(user, idle) then note(user, NOW) end
  return 1
end
redis.call('HSET', presence, 'left', NOW)
see_off(user, NOW, NOW + tonumber(ARGV[13]))
return 1
