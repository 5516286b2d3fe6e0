-- Devices have become idle, or are in use again. What another session holds by now is left alone.
-- ARGV adds: for each user, device, holder and 1 (idle) or 0.
for i = 9, #ARGV, 4 do
  local user, device, holder, is_idle = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if redis.call('HGET', SOCKET .. user, device) == holder then
    local presence, field = PRESENCE .. user, 'idle:' .. device
    if is_idle == '1' then
      redis.call('HSET', presence, field, string.match(holder, '^(.*)@'))
    else
      redis.call('HDEL', presence, field)
    end
    local _, idle = purge(user)
    if settle(user, idle) then note(user, NOW) end
  end
end
return 1
