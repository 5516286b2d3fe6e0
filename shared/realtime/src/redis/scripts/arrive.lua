-- A device is connected. Answers the live session that held the device, if another did: the newer one
-- of the two, which has the larger id, holds it from now on.
-- ARGV adds: user, device, session, gateway.
local user, device, session, gateway = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local socket, presence = SOCKET .. user, PRESENCE .. user
renew(gateway)
local left = purge(user)
local was_online = left > 0 and redis.call('ZSCORE', ONLINE, user)
local holder = redis.call('HGET', socket, device)
local held_by = holder and string.match(holder, '^(.*)@') or false
local is_repeat = held_by == session
if held_by and held_by > session then return held_by end
redis.call('HSET', socket, device, session .. '@' .. gateway)
redis.call('PEXPIRE', socket, SOCKET_TTL)
redis.call('ZADD', ONLINE, 'GT', NOW, user)
redis.call('HDEL', presence, 'idle:' .. device, 'gone')
-- Nobody was told that the user is there; whoever departs without this was there before a wipe.
redis.call('HSETNX', presence, 'told', 'offline')
redis.call('PEXPIRE', presence, PRESENCE_TTL)
if settle(user, false) or not was_online then note(user, NOW) end
return not is_repeat and held_by or false
