-- Users were looked at and told of. ARGV adds: for each user, until when it was held (which says by
-- whom), what the others know now, and when its grace ends or 0.
for i = 9, #ARGV, 4 do
  local user, presence = ARGV[i], PRESENCE .. ARGV[i]
  local held, again = unpack(redis.call('HMGET', presence, 'held', 'again'))
  if held == ARGV[i + 1] then
    redis.call('HDEL', presence, 'held', 'again')
    redis.call('HSET', presence, 'told', ARGV[i + 2], 'looked', NOW)
    redis.call('PEXPIRE', presence, PRESENCE_TTL)
    local ends = tonumber(ARGV[i + 3])
    local next = tonumber(again)
    if ends > 0 and (not next or ends < next) then next = ends end
    if next then
      redis.call('ZADD', DUE, math.max(next, NOW + APART), user)
    else
      redis.call('ZREM', DUE, user)
    end
  end
end
return 1
