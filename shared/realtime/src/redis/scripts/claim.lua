-- Marks jobs as seen. KEYS: one per job. ARGV: time to live in ms. Answers 1 for each that was not.
local fresh = {}
for i, key in ipairs(KEYS) do
  fresh[i] = redis.call('SET', key, '', 'NX', 'PX', ARGV[1]) and 1 or 0
end
return fresh
