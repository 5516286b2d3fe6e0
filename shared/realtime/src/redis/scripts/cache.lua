-- Replaces a set. KEYS: the set. ARGV: time to live in s, then the elements; without any there is no set.
redis.call('DEL', KEYS[1])
local STEP = 1000
for first = 2, #ARGV, STEP do
  redis.call('SADD', KEYS[1], unpack(ARGV, first, math.min(first + STEP - 1, #ARGV)))
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
