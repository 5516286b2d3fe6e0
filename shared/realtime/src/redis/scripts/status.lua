-- What a user wishes to be seen as. KEYS: the user's presence hash, online:users.
-- ARGV: user, status, now in ms, time to live of the presence hash in ms.
-- Whoever hides was last seen at that moment; nothing after that may show.
local before = redis.call('HGET', KEYS[1], 'status')
if ARGV[2] == 'invisible' and before ~= 'invisible' and redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('HSET', KEYS[1], 'seen', ARGV[3])
end
redis.call('HSET', KEYS[1], 'status', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], 'XX', 'GT', ARGV[3], ARGV[1])
return 1
