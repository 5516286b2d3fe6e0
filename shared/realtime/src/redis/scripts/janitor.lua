-- One slice of the janitor's work: trims online:users, then extends what living gateways hold and
-- sees off those whose gateways have all died.
-- ARGV adds: for how long a sign of life counts (ms), users in a slice, cursor of the
-- extending part, the grace in ms. Answers how many are gone, extended, next cursor, too old ones found.
local slice, grace = ARGV[10], tonumber(ARGV[12])
local gone, extended = 0, 0
local stale = redis.call('ZRANGEBYSCORE', ONLINE, '-inf', '(' .. string.format('%.0f', NOW - tonumber(ARGV[9])), 'WITHSCORES', 'LIMIT', 0, slice)
for i = 1, #stale, 2 do
  see_off(stale[i], stale[i + 1], NOW)
  gone = gone + 1
end
local page = redis.call('ZSCAN', ONLINE, ARGV[11], 'COUNT', slice)
for i = 1, #page[2], 2 do
  local user = page[2][i]
  -- A page may name somebody who was trimmed just now, and somebody whose devices were wiped.
  if redis.call('ZSCORE', ONLINE, user) and redis.call('EXISTS', SOCKET .. user) == 1 then
    local left, idle = purge(user)
    if left > 0 then
      redis.call('PEXPIRE', SOCKET .. user, SOCKET_TTL)
      redis.call('PEXPIRE', PRESENCE .. user, PRESENCE_TTL)
      extended = extended + 1
      if settle(user, idle) then note(user, NOW) end
    else
      see_off(user, page[2][i + 1], NOW + grace)
      gone = gone + 1
    end
  end
end
return {gone, extended, page[1], #stale / 2}
