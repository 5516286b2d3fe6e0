-- What users wish to be seen as. ARGV adds: 1 if only who has no wish is given one, else 0; then for
-- each user and status. Whoever hides was last seen at that moment; nothing
-- after that may show, and there is no grace.
local only_new = ARGV[9] == '1'
for i = 10, #ARGV, 2 do
  local user, status = ARGV[i], ARGV[i + 1]
  local presence = PRESENCE .. user
  local before, seen, left = unpack(redis.call('HMGET', presence, 'status', 'seen', 'left'))
  if not (only_new and before) then
    local hides = status == 'invisible'
    if hides then
      if before and before ~= 'invisible' and redis.call('ZSCORE', ONLINE, user) then
        redis.call('HSET', presence, 'seen', NOW)
      end
      redis.call('HDEL', presence, 'gone')
    elseif not before and left and not seen then
      redis.call('HSET', presence, 'seen', left)
    end
    redis.call('HSET', presence, 'status', status)
    redis.call('PEXPIRE', presence, PRESENCE_TTL)
    redis.call('ZADD', ONLINE, 'XX', 'GT', NOW, user)
    if before ~= status and not only_new then note(user, NOW) end
  end
end
return 1
