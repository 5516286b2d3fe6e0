-- A gateway lives, and these users are connected to it. ARGV adds: gateway, how long after a departure
-- an old list is not believed (ms), then the users.
renew(ARGV[9])
for i = 11, #ARGV do
  local user = ARGV[i]
  if redis.call('ZSCORE', ONLINE, user) then
    redis.call('ZADD', ONLINE, 'GT', NOW, user)
  else
    local left = redis.call('HGET', PRESENCE .. user, 'left')
    if not left or tonumber(left) + tonumber(ARGV[10]) < NOW then
      redis.call('ZADD', ONLINE, NOW, user)
      redis.call('HDEL', PRESENCE .. user, 'gone')
      note(user, NOW)
    end
  end
end
return 1
