-- What scripts see. Run once for each Lua state, with what Rust provides as argument;
-- returns the function that runs a script and the table that is its environment.
--
-- Lua 5.1 has no tables that are read-only, so a script gets an empty table in the place of
-- each library, that reads from the real one and refuses to be written.
local host = ...
local error, type, select, next, tostring, rawget, rawset = error, type, select, next, tostring, rawget, rawset
local setmetatable, getmetatable, pcall, xpcall, pairs = setmetatable, getmetatable, pcall, xpcall, pairs
local concat, resume = table.concat, coroutine.resume
local ended, locate = host.ended, host.locate

local READONLY = "Attempt to modify a readonly table"
-- What ends a script for good: no pcall catches it.
local ENDED = "ended"

local real_of, stand_ins = {}, {}
local function refuse() error(READONLY, 2) end
local function protect(real)
  local stand_in = setmetatable({}, { __index = real, __newindex = refuse })
  real_of[stand_in] = real
  stand_ins[#stand_ins + 1] = stand_in
  return stand_in
end

-- What a script sees of an error that a function of Rust has raised.
local describe = host.describe
local function plain(err)
  return type(err) == "userdata" and describe(err) or err
end
local function caught(ok, ...)
  if ok then return true, ... end
  if ended() then error(ENDED, 0) end
  local err = plain((...))
  if type(err) == "table" then
    local text = err.err
    if type(text) == "string" or type(text) == "number" then return false, text end
  end
  return false, err
end
local function unless_ended(...)
  if ended() then error(ENDED, 0) end
  return ...
end

local globals = {}
for _, name in pairs({ "_VERSION", "assert", "collectgarbage", "error", "gcinfo", "ipairs",
  "rawequal", "select", "tonumber", "tostring", "type", "unpack" }) do
  globals[name] = _G[name]
end
local math, string, coroutine = math, string, coroutine
for name, f in pairs(host.math) do math[name] = f end
local function resumed(ok, ...)
  if ended() then error(ENDED, 0) end
  if ok then return true, ... end
  return false, plain((...))
end
coroutine.resume = function(...) return resumed(resume(...)) end

local reset_cjson = host.cjson.reset
host.cjson.reset = nil
host.cjson.new = function()
  local copy = {}
  for name, f in pairs(real_of[globals.cjson]) do copy[name] = f end
  return copy
end

local redis = host.constants
for name, f in pairs(host.redis) do redis[name] = f end
redis.call, redis.pcall = host.call, host.pcall
redis.error_reply, redis.status_reply = host.error_reply, host.status_reply

for name, functions in pairs({ redis = redis, math = math, string = string, table = table,
  coroutine = coroutine, bit = host.bit, struct = host.struct,
  cmsgpack = host.cmsgpack, cjson = host.cjson }) do
  globals[name] = protect(functions)
end

globals.pcall = function(...) return caught(pcall(...)) end
globals.xpcall = function(f, handler)
  return unless_ended(xpcall(f, function(err) return handler(plain(err)) end))
end
globals.pairs = host.pairs_of(real_of, next)
globals.next = host.next_of(real_of, next)
globals.rawget = function(t, key) return rawget(real_of[t] or t, key) end
globals.rawset = function(t, key, value)
  if real_of[t] then error(READONLY, 0) end
  return rawset(t, key, value)
end
globals.setmetatable = function(t, meta)
  if real_of[t] then error(READONLY, 0) end
  return setmetatable(t, meta)
end
local function undefined(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end
local of_strings = protect({ __index = globals.string })
local of_globals = protect({ __index = undefined })
local environment
globals.getmetatable = function(t)
  if t == environment then return of_globals end
  if type(t) == "string" then return of_strings end
  if real_of[t] then return nil end
  return getmetatable(t)
end
-- The chunk that is compiled sees what scripts see.
globals.loadstring = function(text, name) return host.load(text, name) end
globals.load = function(f, name)
  local parts = {}
  while true do
    local part = f()
    if part == nil or part == "" then break end
    parts[#parts + 1] = part
    -- Bytecode is refused; this one may never end.
    if parts[1]:byte() == 27 then break end
  end
  return host.load(concat(parts), name or "=(load)")
end

setmetatable(globals, { __index = undefined })
environment = protect(globals)
rawset(globals, "_G", environment)

local function handler(err)
  if ended() then return err end
  err = plain(err)
  if type(err) ~= "table" then err = { err = "ERR " .. tostring(err) } end
  local source, line = locate()
  if source then err = { err = err.err, source = source, line = line } end
  return err
end
rawset(globals, "__redis__err__handler", handler)

-- Functions of the string library wrote past it with table.insert: nothing stays of that.
local function clean()
  for i = 1, #stand_ins do
    local stand_in = stand_ins[i]
    local key = next(stand_in)
    while key ~= nil do
      rawset(stand_in, key, nil)
      key = next(stand_in)
    end
  end
end

local function run(f, keys, args)
  local ok, value
  if keys then
    ok, value = xpcall(function() return f(keys, args) end, handler)
  else
    ok, value = xpcall(f, handler)
  end
  clean()
  reset_cjson()
  return ok, value
end

return run, environment, globals
