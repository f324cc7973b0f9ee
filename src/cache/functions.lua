#!lua name=freshet1
-- The cache's side of the coherence protocol; ARCHITECTURE.md tells the rules.
-- The digit in the names is the version of what the keys hold. When it is loaded, digits
-- that tell this text are put behind it: each build calls a library of its own.
--
-- Calls: KEYS are the clients' keys. ARGV[1] is the generation, ARGV[2] the
-- databases: empty if all keys are in database 0, else a character for each
-- key, '0' + database. Every call is sent on a connection in database 0.

-- Redis gives a library neither redis.call nor string while it loads: each call fetches them.
local call, find, match, sub, byte, gsub
-- Names in one command at most: Lua's stack bounds what unpack gives.
local TOGETHER = 1000
local function arrive()
  call = redis.call
  find, match, sub, byte, gsub = string.find, string.match, string.sub, string.byte, string.gsub
end

local MARK = '\0f:gen'
local HISTORY = '\0f:store'
-- The generation before which the cache was emptied, until it is stamped again.
local CLOSED = '\0f:closed'

-- Whether key k has a hash tag of its own.
local function tagged(k)
  return find(k, '{', 1, true) and find(k, '^[^{]*{[^}]+}')
end

-- Names in the slot of key k: its companion; companion and hidden.
local function companion_of(k)
  if tagged(k) then
    return '\0fC' .. k
  end
  return '\0fc{' .. k .. '}'
end
local function names(k)
  if tagged(k) then
    return '\0fC' .. k, '\0fH' .. k
  end
  return '\0fc{' .. k .. '}', '\0fh{' .. k .. '}'
end

local function mismatch(generation)
  local mark = call('GET', MARK)
  if mark ~= generation then
    return redis.error_reply('FENCED the cache holds generation ' .. (mark or 'none'))
  end
end

-- An error unless every database named holds the caller's generation: each has
-- a mark of its own, so that a FLUSHDB of one is noticed.
local function fenced(generation, dbs)
  arrive()
  if dbs == '' then
    return mismatch(generation)
  end
  local checked = {}
  for i = 1, #dbs do
    local db = byte(dbs, i) - 48
    if not checked[db] then
      call('SELECT', db)
      local refused = mismatch(generation)
      if refused then
        return refused
      end
      checked[db] = true
    end
  end
end

-- Makes `use(i)` select the database of key i, without a call where none is needed.
local function databases(dbs)
  if dbs == '' then
    return function() end
  end
  local current
  return function(i)
    local db = byte(dbs, i) - 48
    if db ~= current then
      call('SELECT', db)
      current = db
    end
  end
end

-- Companion: 'floor content expiry lease writers'. content is '-' (unknown), the
-- version of a string, 'c' and that of another type, or 'a' and a version (the
-- absent mark); writers are 'id;' each.
local function parse(c)
  if not c then
    return '0', '-', '-', '-', ''
  end
  return match(c, '^(%d+) (%S+) (%S+) (%S+) (%S*)$')
end

local function version_of(content)
  return tonumber((gsub(content, '^%l', '')))
end

local function higher(floor, version)
  if tonumber(version) > tonumber(floor) then
    return version
  end
  return floor
end

-- Keeps a companion that says something; one that would say nothing goes. That
-- of a collection says its version, which the next delta needs.
-- `life` is the SET option and value that end one without writers.
local function keep(companion, floor, content, expiry, lease, writers, option, life)
  local text = floor .. ' ' .. content .. ' ' .. expiry .. ' ' .. lease .. ' ' .. writers
  if writers ~= '' then
    call('SET', companion, text)
  elseif lease ~= '-' or (content ~= '-' and (expiry ~= '-' or find(content, '^%l'))) then
    call('SET', companion, text, option, life)
  else
    call('DEL', companion)
  end
end

local function without(writers, id)
  local from, to = find(';' .. writers, ';' .. id .. ';', 1, true)
  if not from then
    return nil
  end
  return sub(writers, 1, from - 1) .. sub(writers, to)
end

-- The usual case of begin: no key has a companion. Two commands do it for all.
-- What an evicted companion left hidden may stay, until its TTL: content is '-',
-- and every call that finds or makes it so deletes or replaces what is hidden.
local function begin_alone(keys, alone)
  local companions = {}
  for i = 1, #keys do
    companions[2 * i - 1], companions[2 * i] = companion_of(keys[i]), alone
  end
  if call('MSETNX', unpack(companions)) == 0 then
    return false
  end
  call('DEL', unpack(keys))
  return true
end

local function begin(keys, args, use)
  local id = args[3] .. ';'
  local alone = '0 - - - ' .. id
  if args[2] == '' and #keys <= TOGETHER and begin_alone(keys, alone) then
    return redis.status_reply('OK')
  end
  for i, k in ipairs(keys) do
    use(i)
    local companion, hidden = names(k)
    if call('SET', companion, alone, 'NX') then
      call('DEL', k, hidden)
    else
      local floor, content, expiry, _, writers = parse(call('GET', companion))
      if writers == '' then
        if content == '-' then
          call('DEL', k, hidden)
        elseif sub(content, 1, 1) ~= 'a' then
          if call('EXISTS', k) == 1 then
            call('RENAME', k, hidden)
          else
            call('DEL', hidden)
            content, expiry = '-', '-'
          end
        end
      end
      if not find(';' .. writers, ';' .. id, 1, true) then
        writers = writers .. id
      end
      call('SET', companion, floor .. ' ' .. content .. ' ' .. expiry .. ' - ' .. writers)
    end
  end
  return redis.status_reply('OK')
end

-- Runs commands, packed as { { name, argument, ... }, ... }, on key k, which comes
-- behind the name (of XGROUP, behind the subcommand). Whether all went well.
local function run(k, packed)
  for _, command in ipairs(cmsgpack.unpack(packed)) do
    local reply
    if command[1] == 'XGROUP' then
      reply = redis.pcall(command[1], command[2], k, unpack(command, 3))
    else
      reply = redis.pcall(command[1], k, unpack(command, 2))
    end
    if type(reply) == 'table' and reply.err then
      return false
    end
  end
  return true
end

-- Runs one effect on hidden content. Returns what is hidden after it.
--   S          whole string, no expiry          S<deadline> <expiry>  with one (or '-')
--   D          deleted, D<life> remembered so long   E<deadline> <expiry>  only the expiry changed
--   I          changed, content not told        O                     only seen
--   B<deadline> <expiry>  made by commands      C<deadline> <expiry>  changed by commands
-- (R, made in steps before the fill, is brought to `hidden` by the fill.)
local function effect(hidden, content, expiry, op, version, value, deadline)
  local kind, has, v = sub(op, 1, 1), version_of(content), tonumber(version)
  if kind == 'O' then
    if has and has >= v then
      return content, expiry
    end
  elseif has and v <= has then
    return content, expiry
  elseif kind == 'S' then
    local ends, true_expiry = match(op, '^S(%d+) (%S+)$')
    call('SET', hidden, value, 'PXAT', ends or deadline)
    return version, true_expiry or '-'
  elseif kind == 'D' then
    call('DEL', hidden)
    return 'a' .. version, '-'
  elseif kind == 'E' and has == v - 1 and sub(content, 1, 1) ~= 'a' then
    local ends, true_expiry = match(op, '^E(%d+) (%S+)$')
    call('PEXPIREAT', hidden, ends)
    return version, true_expiry
  end
  local ends, true_expiry = match(op, '^[BC](%d+) (%S+)$')
  if kind == 'B' then
    call('DEL', hidden)
  end
  local fits = kind == 'B' or has == v - 1 and sub(content, 1, 1) == 'c' and call('EXISTS', hidden) == 1
  if ends and fits and run(hidden, value) and call('PEXPIREAT', hidden, ends) == 1 then
    return 'c' .. version, true_expiry
  end
  call('DEL', hidden)
  return '-', '-'
end

-- The last writer has left: content as fresh as the floor is shown, other goes.
local function reveal(k, hidden, floor, content, expiry)
  if sub(content, 1, 1) == 'a' then
    if version_of(content) == tonumber(floor) then
      return content, expiry
    end
  elseif content ~= '-' and version_of(content) == tonumber(floor) and call('EXISTS', hidden) == 1 then
    call('RENAME', hidden, k)
    return content, expiry
  end
  call('DEL', hidden)
  return '-', '-'
end

-- How long a companion without writers lives beside its content.
local function life(k, content, absent_ttl)
  if sub(content, 1, 1) == 'a' then
    return 'PX', absent_ttl
  end
  local ends = call('PEXPIRETIME', k)
  if ends > 0 then
    return 'PXAT', ends
  end
  return 'PX', absent_ttl -- it was evicted: what is told of it may linger a little
end

-- Applies one op to key k, whose companion holds c.
local function settle(k, companion, hidden, c, id, op, version, value, deadline, absent_ttl)
  local floor, content, expiry, lease, writers = parse(c)
  local others = without(writers, id)
  absent_ttl = match(op, '^D(%d+)$') or absent_ttl
  floor = higher(floor, version)
  if others then
    content, expiry = effect(hidden, content, expiry, op, version, value, deadline)
    if others == '' then
      content, expiry = reveal(k, hidden, floor, content, expiry)
    end
    writers = others
  elseif op ~= 'O' then
    call('DEL', k, hidden)
    content, expiry, lease = '-', '-', '-'
  elseif writers ~= '' or content == '-' or version_of(content) < tonumber(version) then
    -- Seen, not begun: what is shown must be as fresh.
    call('DEL', k, hidden)
    content, expiry = '-', '-'
  end
  if writers == '' and lease == '-' and content ~= '-' then
    keep(companion, floor, content, expiry, lease, writers, life(k, content, absent_ttl))
  else
    keep(companion, floor, content, expiry, lease, writers, 'PX', absent_ttl)
  end
end

-- The companions of all keys, read together where that is possible, and their names.
local function companions_of(keys, dbs)
  if dbs ~= '' or #keys > TOGETHER then
    return nil
  end
  local companions = {}
  for i = 1, #keys do
    companions[i] = companion_of(keys[i])
  end
  return call('MGET', unpack(companions)), companions
end

-- ARGV: generation, databases, id, deadline (PXAT) of natives without expiry,
-- life of an absent mark (ms), then op, version, value for each key.
local function apply(keys, args, use)
  local id, deadline, absent_ttl = args[3], args[4], args[5]
  local alone = '0 - - - ' .. id .. ';'
  local found, companions = companions_of(keys, args[2])
  local done, count = {}, 0
  for i = 1, #keys do
    local k = keys[i]
    local op = args[3 * i + 3]
    local ends = op == 'S' and deadline or match(op, '^S(%d+) %-$')
    if ends and found and found[i] == alone then
      -- The usual case: one writer, a whole string without expiry.
      call('SET', k, args[3 * i + 5], 'PXAT', ends)
      count = count + 1
      done[count] = companions[i]
    else
      use(i)
      local companion, hidden = names(k)
      local c
      if found then
        c = found[i]
      else
        c = call('GET', companion)
      end
      settle(k, companion, hidden, c, id, op, args[3 * i + 4], args[3 * i + 5], deadline, absent_ttl)
    end
  end
  if count > 0 then
    call('DEL', unpack(done))
  end
  return redis.status_reply('OK')
end

-- ARGV: generation, databases, token, life of a lease (ms).
-- For each key: h (there), a (known to be absent), l (leased), w and the ids of its writers.
local function look(keys, args, use)
  local token, lease_ms = args[3], args[4]
  local answers = {}
  for i, k in ipairs(keys) do
    use(i)
    local companion, hidden = names(k)
    local c = call('GET', companion)
    local floor, content, _, _, writers = parse(c)
    if writers ~= '' then
      answers[i] = 'w' .. writers
    elseif sub(content, 1, 1) == 'a' then
      answers[i] = 'a'
    elseif call('EXISTS', k) == 1 then
      answers[i] = 'h'
    else
      call('DEL', hidden)
      call('SET', companion, floor .. ' - - ' .. token .. ' ', 'PX', lease_ms)
      answers[i] = 'l'
    end
  end
  return answers
end

-- Where a large collection is made before a fill.
local function staging(k, token)
  local _, hidden = names(k)
  return hidden .. '\0' .. token
end

-- ARGV: generation, databases, token, life (ms), number of the step, commands.
local function stage(keys, args, use)
  use(1)
  local name = staging(keys[1], args[3])
  if args[5] == '0' then
    call('DEL', name)
  elseif call('EXISTS', name) == 0 then
    return redis.status_reply('GONE')
  end
  if not run(name, args[6]) then
    call('DEL', name)
  else
    call('PEXPIRE', name, args[4])
  end
  return redis.status_reply('OK')
end

local SIZE = { hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD', stream = 'XLEN' }

-- Renames what was staged to k, if all of it is there.
local function unstage(k, token, size)
  local name = staging(k, token)
  local count = SIZE[call('TYPE', name).ok]
  if count and tostring(call(count, name)) == size then
    call('RENAME', name, k)
    return true
  end
  call('DEL', name)
  return false
end

-- ARGV: generation, databases, token, deadline, life of an absent mark, then
-- op (S, S<deadline> <expiry>, D or O), version, value for each key.
-- For each key: 1 (set), 0 (refused: the cache was only told the version).
local function fill(keys, args, use)
  local token, deadline, absent_ttl = args[3], args[4], args[5]
  local answers = {}
  for i, k in ipairs(keys) do
    use(i)
    local op, version, value = args[3 * i + 3], args[3 * i + 4], args[3 * i + 5]
    local companion, hidden = names(k)
    local floor, content, expiry, lease, writers = parse(call('GET', companion))
    local mine = lease == token
    if mine and writers == '' and tonumber(version) >= tonumber(floor) and op ~= 'O' then
      answers[i] = 1
      local ends, true_expiry = match(op, '^R(%d+) (%S+)$')
      if not ends then
        content, expiry = effect(k, '-', '-', op, version, value, deadline)
      elseif unstage(k, token, value) and call('PEXPIREAT', k, ends) == 1 then
        content, expiry = 'c' .. version, true_expiry
      else
        answers[i] = 0
        call('DEL', k)
        content, expiry = '-', '-'
      end
      keep(companion, version, content, expiry, '-', '', life(k, content, match(op, '^D(%d+)$') or absent_ttl))
    else
      answers[i] = 0
      floor = higher(floor, version)
      if mine then
        lease = '-'
      end
      if writers == '' then
        if content == '-' or version_of(content) < tonumber(version) then
          call('DEL', k, hidden)
          content, expiry = '-', '-'
        end
      end
      if writers == '' and lease == '-' and content ~= '-' then
        keep(companion, floor, content, expiry, lease, writers, life(k, content, absent_ttl))
      else
        keep(companion, floor, content, expiry, lease, writers, 'PX', absent_ttl)
      end
    end
  end
  return answers
end

-- ARGV: generation, databases, number of the dead proxy, version in the store
-- after the proof of its death, for one key.
local function bury(keys, args, use)
  use(1)
  local k, proxy, version = keys[1], args[3], args[4]
  local companion, hidden = names(k)
  local floor, _, _, _, writers = parse(call('GET', companion))
  local others = gsub(writers, '[^;]+;', function(id)
    if sub(id, 1, #proxy + 1) == proxy .. '.' then
      return ''
    end
  end)
  call('DEL', k, hidden)
  keep(companion, higher(floor, version), '-', '-', '-', others, 'PX', 1)
  return redis.status_reply('OK')
end

-- Empties the cache of generations before ARGV[1], leaves it without a mark, and refuses the
-- stamps of earlier generations, which may be under way still.
local function close(_, args)
  arrive()
  local mark = call('GET', MARK)
  if not mark or tonumber(mark) < tonumber(args[1]) then
    call('FLUSHALL', 'ASYNC')
    call('SET', CLOSED, args[1])
  end
  return redis.status_reply('OK')
end

-- Looks at keys and changes nothing. ARGV: generation, databases, bytes at most.
-- The cache's clock (ms), then of each key: companion, PEXPIRETIME, type, content (of a
-- string its bytes, else as DUMP tells it). Ends early when that is enough.
local function inspect(keys, args, use)
  local left = tonumber(args[3])
  local clock = call('TIME')
  local answers = { clock[1] * 1000 + math.floor(clock[2] / 1000) }
  for i, k in ipairs(keys) do
    use(i)
    local kind = call('TYPE', k).ok
    local content = false
    if kind == 'string' then
      content = call('GET', k)
    elseif kind ~= 'none' then
      content = call('DUMP', k)
    end
    answers[i + 1] = { call('GET', companion_of(k)), call('PEXPIRETIME', k), kind, content }
    left = left - (content and #content or 0)
    if left <= 0 then
      break
    end
  end
  return answers
end

-- ARGV: generation, databases, the store's history.
-- Empties the cache and stamps it, unless it holds that generation or a later one.
local function open(_, args)
  arrive()
  local mark = call('GET', MARK)
  if mark and tonumber(mark) >= tonumber(args[1]) then
    return redis.error_reply('FENCED the cache holds generation ' .. mark)
  end
  local closed = call('GET', CLOSED)
  if closed and tonumber(closed) > tonumber(args[1]) then
    return redis.error_reply('FENCED the cache waits for generation ' .. closed)
  end
  call('FLUSHALL', 'ASYNC')
  for db = 0, 15 do
    call('SELECT', db)
    call('SET', MARK, args[1])
  end
  call('SELECT', 0)
  call('SET', HISTORY, args[3])
  return redis.status_reply('OK')
end

-- Runs work only in a cache of the caller's generation. It gets what selects
-- the database of a key as its third argument.
local function guarded(work)
  return function(keys, args)
    local refused = fenced(args[1], args[2])
    if refused then
      return refused
    end
    return work(keys, args, databases(args[2]))
  end
end

-- A full cache may refuse content (apply, fill), but never what takes it away.
local OOM = { 'allow-oom' }
redis.register_function { function_name = 'freshet1_begin', callback = guarded(begin), flags = OOM }
redis.register_function { function_name = 'freshet1_apply', callback = guarded(apply) }
redis.register_function { function_name = 'freshet1_settle', callback = guarded(apply), flags = OOM }
redis.register_function { function_name = 'freshet1_look', callback = guarded(look), flags = OOM }
redis.register_function { function_name = 'freshet1_stage', callback = guarded(stage) }
redis.register_function { function_name = 'freshet1_fill', callback = guarded(fill) }
redis.register_function { function_name = 'freshet1_observe', callback = guarded(fill), flags = OOM }
redis.register_function { function_name = 'freshet1_bury', callback = guarded(bury), flags = OOM }
redis.register_function { function_name = 'freshet1_close', callback = close, flags = OOM }
redis.register_function { function_name = 'freshet1_inspect', callback = guarded(inspect), flags = { 'no-writes' } }
redis.register_function { function_name = 'freshet1_open', callback = open, flags = OOM }
