-- Reads the logs of many rooms at once.
-- KEYS: the logs. ARGV: how many bytes all payloads together may have, then for each log the rev after which, and how
-- many payloads. Answers for each log its payloads; or how many bytes these have when there is no room for all; or
-- false when it cannot vouch for them, or an earlier one found no room.
local STEP = 16
local left = tonumber(ARGV[1])

local function payload_of(fields)
  for place = 1, #fields, 2 do
    if fields[place] == 'p' then return fields[place + 1] end
  end
  return nil
end

local function read(key, after, count)
  local payloads, found, bytes, newest, start = {}, 0, 0, nil, string.format('%d-0', after)
  local function told()
    if bytes > left then
      left = 0
      return bytes
    end
    left = left - bytes
    return payloads
  end
  while true do
    local entries = redis.pcall('XRANGE', key, start, '+', 'COUNT', STEP)
    if entries.err then return false end
    for _, entry in ipairs(entries) do
      local rev, payload = tonumber(string.match(entry[1], '^%d+')), payload_of(entry[2])
      local fits = newest and rev == newest + 1 or not newest and (rev == after or rev == after + 1)
      -- Where a log begins stands an entry without a payload.
      if not fits or not payload or rev > after and payload == '' then return false end
      newest = rev
      if rev > after then
        found, bytes = found + 1, bytes + #payload
        if bytes <= left then payloads[found] = payload end
        if found >= count then return told() end
      end
    end
    if #entries < STEP then return newest and told() or false end
    start = '(' .. entries[#entries][1]
  end
end

local answers = {}
for number, key in ipairs(KEYS) do
  answers[number] = left > 0 and read(key, tonumber(ARGV[2 * number]), tonumber(ARGV[2 * number + 1])) or false
end
return answers
