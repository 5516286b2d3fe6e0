-- Takes users who are due to be looked at; each is held for a while, so that whoever dies with it
-- loses nobody. ARGV adds: users at most, for how long they are held (ms).
-- Answers all who wait, whether a gateway died, until when they are held, and for each user: id,
-- score in online:users, status, seen, left, gone, idle, told, changes, and until when a look was held
-- that never ended.
local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', NOW, 'LIMIT', 0, ARGV[9])
local until_ms = NOW + tonumber(ARGV[10])
local found = {}
for _, user in ipairs(due) do
  local presence = PRESENCE .. user
  redis.call('ZADD', DUE, until_ms, user)
  local it = redis.call('HMGET', presence, 'status', 'seen', 'left', 'gone', 'idle', 'told', 'changes', 'held')
  redis.call('HDEL', presence, 'again', 'changes')
  redis.call('HSET', presence, 'held', until_ms)
  redis.call('PEXPIRE', presence, PRESENCE_TTL)
  table.insert(it, 1, redis.call('ZSCORE', ONLINE, user))
  table.insert(it, 1, user)
  found[#found + 1] = it
end
-- By some clock their leases have run out; what counts is whether they have.
local died = 0
for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', GATEWAYS, '-inf', NOW, 'LIMIT', 0, 16)) do
  local left = redis.call('PTTL', GATEWAY .. gateway)
  if left > 0 then
    redis.call('ZADD', GATEWAYS, NOW + left, gateway)
  else
    redis.call('ZREM', GATEWAYS, gateway)
    redis.call('DEL', JANITOR)
    died = 1
  end
end
return {redis.call('ZCARD', DUE), died, until_ms, found}
