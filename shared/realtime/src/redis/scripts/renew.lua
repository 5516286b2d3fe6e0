-- A gateway lives, and these users are connected to it.
-- KEYS: the gateway's lease, online:users. ARGV: now in ms, the lease's time to live in ms, prefix of
-- presence hashes, how long after a departure an old list is not believed (ms), then the users.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = tonumber(ARGV[1])
for i = 5, #ARGV do
  local user = ARGV[i]
  local believed = redis.call('ZSCORE', KEYS[2], user)
  if not believed then
    local left = redis.call('HGET', ARGV[3] .. user, 'left')
    believed = not left or tonumber(left) + tonumber(ARGV[4]) < now
  end
  if believed then redis.call('ZADD', KEYS[2], 'GT', ARGV[1], user) end
end
return 1
