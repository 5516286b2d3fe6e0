-- What all scripts about people begin with.
-- KEYS: online:users, presence:due, gateways, the janitor's stamp. ARGV: now in ms, or empty for
-- the server's own clock, which is the same for all; prefixes of socket hashes, presence hashes and gateway
-- leases; times to live of the three in ms; least time between two looks at a user in ms. What a script
-- adds begins with ARGV[9].
local ONLINE, DUE, GATEWAYS, JANITOR = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local NOW = tonumber(ARGV[1])
if not NOW then
  local time = redis.call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end
local SOCKET, PRESENCE, GATEWAY = ARGV[2], ARGV[3], ARGV[4]
local SOCKET_TTL, PRESENCE_TTL, GATEWAY_TTL = ARGV[5], ARGV[6], ARGV[7]
local APART = tonumber(ARGV[8])
local leases = {}

local function lives(gateway)
  if leases[gateway] == nil then leases[gateway] = redis.call('EXISTS', GATEWAY .. gateway) == 1 end
  return leases[gateway]
end

local function renew(gateway)
  redis.call('SET', GATEWAY .. gateway, NOW, 'PX', GATEWAY_TTL)
  redis.call('ZADD', GATEWAYS, NOW + tonumber(GATEWAY_TTL), gateway)
  leases[gateway] = true
end

-- Notes that a user changed and has to be looked at, not before `at`. Of whom a look is under way, the
-- next one waits until that is over: two at a time could tell in the wrong order.
local function note(user, at)
  local presence = PRESENCE .. user
  redis.call('HINCRBY', presence, 'changes', 1)
  local looked, held, again = unpack(redis.call('HMGET', presence, 'looked', 'held', 'again'))
  if held and redis.call('ZSCORE', DUE, user) then
    if not again or tonumber(again) > at then redis.call('HSET', presence, 'again', at) end
  else
    redis.call('ZADD', DUE, 'LT', math.max(at, (tonumber(looked) or 0) + APART), user)
  end
  redis.call('PEXPIRE', presence, PRESENCE_TTL)
end

-- Forgets devices whose gateways have died. Answers how many are left and whether all of them are idle.
local function purge(user)
  local socket, presence = SOCKET .. user, PRESENCE .. user
  local held = redis.call('HGETALL', socket)
  local left, idle = 0, true
  for i = 1, #held, 2 do
    local session, gateway = string.match(held[i + 1], '^(.*)@(.*)$')
    if gateway and lives(gateway) then
      left = left + 1
      idle = idle and redis.call('HGET', presence, 'idle:' .. held[i]) == session
    else
      redis.call('HDEL', socket, held[i])
      redis.call('HDEL', presence, 'idle:' .. held[i])
    end
  end
  return left, left > 0 and idle
end

-- Notes whether all of a user's devices are idle; true if that is new.
local function settle(user, idle)
  local presence = PRESENCE .. user
  if idle then return redis.call('HSETNX', presence, 'idle', 1) == 1 end
  return redis.call('HDEL', presence, 'idle') == 1
end

-- A user's last device has gone, last seen at `at`; for the others it is there until `gone`.
-- Nobody sees when the hidden go. Of whom the wish is not known it shows when that is learnt.
local function see_off(user, at, gone)
  local presence = PRESENCE .. user
  redis.call('ZREM', ONLINE, user)
  local wish = redis.call('HGET', presence, 'status')
  if wish == 'invisible' then
    redis.call('HDEL', presence, 'gone')
  else
    if wish then redis.call('HSET', presence, 'seen', at) end
    redis.call('HSET', presence, 'gone', gone)
    -- After a wipe nobody knows what was told; who was there was told to be.
    redis.call('HSETNX', presence, 'told', 'online')
  end
  note(user, math.max(NOW, gone))
end
