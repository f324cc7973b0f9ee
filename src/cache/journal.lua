#!lua name=freshetjournal1
-- What runs in the journal's server, in its database 0. docs: src/ARCHITECTURE.md, "Routes".
--
-- A key is known here by its tail: a hexadecimal digit, its database, and its name. Its value rests under
-- RESTING and its tail; only while a command of a client's runs on it, it is under WORKING and its tail. So a
-- command that runs though it should not (its guard was refused, or is not there) finds nothing, and what it makes
-- is thrown away.

local MARK = '\1f:mark'           -- which incarnation of the journal this is
local LOG = '\1f:log'             -- the stream of changes: how many there were in all, and tails
local TOTAL = '\1f:total'         -- how many changes there were in all
local DONE = '\1f:done'           -- how many of them are in the store
local KNOWN = '\1f:known'         -- tail -> id of its last change, or when it was brought in
local DROPPED = '\1f:dropped'     -- how often keys were dropped from here

local RESTING = '\1f~'
local WORKING = '\1f='

-- Tails in one entry of the log at most.
local ENTRY = 32

local function check(mark)
  local found = redis.call('GET', MARK)
  if found ~= mark then
    return redis.error_reply('FENCED the journal is ' .. (found or 'empty') .. ', not ' .. mark)
  end
end

-- How many changes are not in the store.
local function waiting()
  return tonumber(redis.call('GET', TOTAL) or '0') - tonumber(redis.call('GET', DONE) or '0')
end

-- The places of those of `names` (after a prefix of three bytes) of which nothing is known; 'y' in `free`
-- are those of which nothing needs to be.
local function missing(names, free)
  local places = {}
  for i = 1, #names do
    if string.sub(free, i, i) ~= 'y' and redis.call('HEXISTS', KNOWN, string.sub(names[i], 4)) == 0 then
      places[#places + 1] = i - 1
    end
  end
  if #places > 0 then
    table.insert(places, 1, tonumber(redis.call('GET', DROPPED) or '0'))
    table.insert(places, 1, 'missing')
    return places
  end
end

-- Whether the guard of the commands that run now let them work.
local is_guarded = false

-- keys: working names. args: mark, most changes that may wait (0: any), which keys need not be known.
local function guard(keys, args)
  is_guarded = false
  local refused = check(args[1])
  if refused then return refused end
  if args[2] ~= '0' and waiting() >= tonumber(args[2]) then
    return {'full'}
  end
  local places = missing(keys, args[3])
  if places then return places end
  for i = 1, #keys do
    -- (Of those that need not be known, the first command replaces whatever is there.)
    if string.sub(args[3], i, i) ~= 'y' then
      local moved = redis.pcall('RENAME', RESTING .. string.sub(keys[i], 4), keys[i])
      if moved.err then redis.call('DEL', keys[i]) end
    end
  end
  is_guarded = true
  return {'ok'}
end

-- Notes that `tails` were changed.
local function note(tails)
  for first = 1, #tails, ENTRY do
    local last = math.min(first + ENTRY - 1, #tails)
    local entry = {'XADD', LOG, '*', 'n', redis.call('INCRBY', TOTAL, last - first + 1)}
    for i = first, last do
      entry[#entry + 1] = ''
      entry[#entry + 1] = tails[i]
    end
    local id = redis.call(unpack(entry))
    local known = {'HSET', KNOWN}
    for i = first, last do
      known[#known + 1] = tails[i]
      known[#known + 1] = id
    end
    redis.call(unpack(known))
  end
end

-- keys: working names. args: 'w' for each that may have been changed.
local function finish(keys, args)
  local is_done = is_guarded
  is_guarded = false
  local tails = {}
  for i = 1, #keys do
    if not is_done then
      redis.call('DEL', keys[i])
    else
      local tail = string.sub(keys[i], 4)
      local moved = redis.pcall('RENAME', keys[i], RESTING .. tail)
      -- It is gone. (One that need not be known was not moved before.)
      if moved.err then redis.call('DEL', RESTING .. tail) end
      if string.byte(args[1], i) == 119 then tails[#tails + 1] = tail end
    end
  end
  note(tails)
  return waiting()
end

-- keys: resting names. args: mark.
local function look(keys, args)
  return check(args[1]) or missing(keys, '') or {'ok'}
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- args: mark, DROPPED as it was, then for each key: tail, what it is, value, end.
local function admit(keys, args)
  local refused = check(args[1])
  if refused then return refused end
  -- Of a key that was known and dropped since, what was read may be old.
  if (redis.call('GET', DROPPED) or '0') ~= args[2] then return 0 end
  local at = string.format('%.0f', now()) .. '-0'
  for i = 3, #args, 4 do
    local tail, kind, value, ends = args[i], args[i + 1], args[i + 2], args[i + 3]
    local name = RESTING .. tail
    if redis.call('HEXISTS', KNOWN, tail) == 0 then
      redis.call('DEL', name)
      if kind == 'string' then
        redis.call('SET', name, value)
      elseif kind == 'dump' then
        redis.call('RESTORE', name, 0, value)
      end
      if ends ~= '' then redis.call('PEXPIREAT', name, ends) end
      redis.call('HSET', KNOWN, tail, at)
    end
  end
  return 1
end

local function numbers(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function last_id()
  local info = redis.pcall('XINFO', 'STREAM', LOG)
  if info.err then return '0-0' end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- What is held of `tails`, appended to `told`; how many bytes that is.
local function tell(told, tails)
  if #tails == 0 then return 0 end
  local names, bytes = {'MGET'}, 0
  for i = 1, #tails do names[i + 1] = RESTING .. tails[i] end
  local values = redis.call(unpack(names))
  for i = 1, #tails do
    local kind, value, name = 'string', values[i], names[i + 1]
    if not value then
      -- Not a string, or nothing.
      kind, value = 'dump', redis.call('DUMP', name)
      if not value then kind, value = 'none', '' end
    end
    local n = #told
    told[n + 1], told[n + 2], told[n + 3] = tails[i], kind, value
    told[n + 4] = redis.call('PEXPIRETIME', name)
    bytes = bytes + #value + #tails[i] + 64
  end
  return bytes
end

-- args: mark, the entry before, keys and bytes of values after which it is enough.
-- Gives: changes that wait, time, id of the last entry covered, then for each key: tail, what it is, value, end.
local function read(keys, args)
  local refused = check(args[1])
  if refused then return refused end
  local last_ms, last_seq = numbers(last_id())
  local from_ms, from_seq = numbers(args[2])
  if last_ms < from_ms or (last_ms == from_ms and last_seq < from_seq) then
    return redis.error_reply('ROLLEDBACK the journal has lost its latest past')
  end
  local to, most, room = args[2], tonumber(args[3]), tonumber(args[4])
  local told, seen, count, is_more = {}, {}, 0, true
  while is_more do
    local entries = redis.call('XRANGE', LOG, '(' .. to, '+', 'COUNT', 32)
    is_more = #entries == 32
    for _, entry in ipairs(entries) do
      if count >= most or room <= 0 then
        is_more = false
        break
      end
      to = entry[1]
      local tails, fields = {}, entry[2]
      for i = 4, #fields, 2 do
        local tail = fields[i]
        if not seen[tail] then
          seen[tail] = true
          tails[#tails + 1] = tail
        end
      end
      count = count + #tails
      room = room - tell(told, tails)
    end
  end
  table.insert(told, 1, to)
  table.insert(told, 1, now())
  table.insert(told, 1, waiting())
  return told
end

-- args: mark, id up to which all is in the store.
local function trim(keys, args)
  local refused = check(args[1])
  if refused then return refused end
  local entry = redis.call('XRANGE', LOG, args[2], args[2])[1]
  if entry then redis.call('SET', DONE, entry[2][2]) end
  local ms, seq = string.match(args[2], '^(%d+)-(%d+)$')
  redis.call('XTRIM', LOG, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
  if redis.call('XLEN', LOG) == 0 then
    redis.call('SET', DONE, redis.call('GET', TOTAL) or '0')
  end
  return waiting()
end

-- args: mark, cursor, milliseconds for which unchanged keys stay. Gives the next cursor.
local function drop(keys, args)
  local refused = check(args[1])
  if refused then return refused end
  local before = now() - tonumber(args[3])
  local first = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
  if first then before = math.min(before, (numbers(first[1]))) end
  local page = redis.call('HSCAN', KNOWN, args[2], 'COUNT', 200)
  local is_any = false
  for i = 1, #page[2], 2 do
    local tail = page[2][i]
    -- What was changed in that millisecond or later may be in the log.
    if numbers(page[2][i + 1]) < before then
      redis.call('UNLINK', RESTING .. tail)
      redis.call('HDEL', KNOWN, tail)
      is_any = true
    end
  end
  if is_any then redis.call('INCR', DROPPED) end
  return page[1]
end

-- args: mark as it is ('' for none), mark to be, 'empty' if all else is to go.
local function mark(keys, args)
  local found = redis.call('GET', MARK) or ''
  if found ~= args[1] then
    return redis.error_reply('FENCED the journal is ' .. found .. ', not ' .. args[1])
  end
  if args[3] == 'empty' then redis.call('FLUSHDB') end
  redis.call('SET', MARK, args[2])
  return 1
end

local function register(name, callback, flags)
  redis.register_function{function_name = 'freshetjournal1_' .. name, callback = callback, flags = flags}
end

register('guard', guard, {'allow-oom'})
register('finish', finish, {'allow-oom'})
register('look', look, {'no-writes', 'allow-oom'})
register('admit', admit, {})
register('read', read, {'no-writes', 'allow-oom'})
register('trim', trim, {'allow-oom'})
register('drop', drop, {'allow-oom'})
register('mark', mark, {'allow-oom'})
