-- One slice of the janitor's work: trims online:users, then extends what living gateways hold and
-- trims those whose gateways have all died.
-- KEYS: online:users. ARGV: the oldest time that still counts as online (ms), users in a slice, cursor
-- of the extending part, prefixes of socket hashes, presence hashes and gateway leases, times to live
-- of socket and presence hashes (ms). Answers who is gone, extended, next cursor, too old ones found.
local gone, extended = {}, 0
local function trim(user, seen)
  redis.call('ZREM', KEYS[1], user)
  local presence = ARGV[5] .. user
  if redis.call('HGET', presence, 'status') ~= 'invisible' then redis.call('HSET', presence, 'seen', seen) end
  redis.call('PEXPIRE', presence, ARGV[8])
  gone[#gone + 1] = user
end
local stale = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #stale, 2 do trim(stale[i], stale[i + 1]) end
local page = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[2])
local living = {}
for i = 1, #page[2], 2 do
  local user = page[2][i]
  local holders = redis.call('HVALS', ARGV[4] .. user)
  local lives = false
  for _, holder in ipairs(holders) do
    local gateway = string.match(holder, '@(.*)$') or ''
    if living[gateway] == nil then living[gateway] = redis.call('EXISTS', ARGV[6] .. gateway) == 1 end
    lives = lives or living[gateway]
  end
  if lives then
    redis.call('PEXPIRE', ARGV[4] .. user, ARGV[7])
    redis.call('PEXPIRE', ARGV[5] .. user, ARGV[8])
    extended = extended + 1
  elseif #holders > 0 then
    redis.call('DEL', ARGV[4] .. user)
    trim(user, page[2][i + 1])
  end
end
return {gone, extended, page[1], #stale / 2}
