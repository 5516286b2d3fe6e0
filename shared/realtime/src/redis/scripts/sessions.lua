-- A user's devices whose gateways live, as device, holder, device, holder, …
-- KEYS: the user's socket hash. ARGV: prefix of gateway leases.
local live = {}
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local gateway = string.match(held[i + 1], '@(.*)$')
  if gateway and redis.call('EXISTS', ARGV[1] .. gateway) == 1 then
    live[#live + 1] = held[i]
    live[#live + 1] = held[i + 1]
  end
end
return live
