-- What the logs of many rooms know about what came after a number, without the payloads.
-- KEYS: the logs. ARGV: the number, and how many entries with a larger one are read, of all logs together.
-- Answers for each log its entries as rev, number and 1 where the log begins, newest first down to the first
-- one that came not after the number; or false when that is too many, or the log cannot be read.
local after, left = tonumber(ARGV[1]), tonumber(ARGV[2])

local function read(key)
  local found, upper, step = {}, '+', 2
  while true do
    local entries = redis.pcall('XREVRANGE', key, upper, '-', 'COUNT', step)
    if entries.err then return false end
    for _, entry in ipairs(entries) do
      local rev, number = tonumber(string.match(entry[1], '^%d+')), tonumber(entry[2][2])
      if not number then return false end
      -- Where a log begins stands an entry without a payload.
      local begins = entry[2][4] == ''
      found[#found + 1] = {rev, number, begins and 1 or 0}
      if number <= after or begins then return found end
      if left == 0 then return false end
      left = left - 1
    end
    if #entries < step then return found end
    upper, step = '(' .. entries[#entries][1], math.min(step * 2, left + 1)
  end
end

local answers = {}
for place, key in ipairs(KEYS) do
  answers[place] = read(key)
end
return answers
