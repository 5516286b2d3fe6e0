-- One slice of the janitor's work: trims online:users, then extends what living gateways hold.
-- KEYS: online:users. ARGV: the oldest time that still counts as online (ms), users in a slice, cursor
-- of the extending part, prefixes of socket hashes, presence hashes and gateway leases, times to live
-- of socket and presence hashes (ms). Answers trimmed, extended, next cursor.
local trimmed, extended = 0, 0
local stale = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #stale, 2 do
  redis.call('ZREM', KEYS[1], stale[i])
  local presence = ARGV[5] .. stale[i]
  if redis.call('HGET', presence, 'status') ~= 'invisible' then redis.call('HSET', presence, 'seen', stale[i + 1]) end
  redis.call('PEXPIRE', presence, ARGV[8])
  trimmed = trimmed + 1
end
local page = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[2])
local living = {}
for i = 1, #page[2], 2 do
  local user = page[2][i]
  for _, holder in ipairs(redis.call('HVALS', ARGV[4] .. user)) do
    local gateway = string.match(holder, '@(.*)$') or ''
    if living[gateway] == nil then living[gateway] = redis.call('EXISTS', ARGV[6] .. gateway) == 1 end
    if living[gateway] then
      redis.call('PEXPIRE', ARGV[4] .. user, ARGV[7])
      redis.call('PEXPIRE', ARGV[5] .. user, ARGV[8])
      extended = extended + 1
      break
    end
  end
end
return {trimmed, extended, page[1]}
