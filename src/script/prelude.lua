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

-- Libraries see the same but for the globals of a script, and while they are loaded, only
-- what it takes to register functions.
local function copy_without(from, ...)
  local copy, left_out = {}, {}
  for i = 1, select("#", ...) do left_out[select(i, ...)] = true end
  for name, value in pairs(from) do
    if not left_out[name] then copy[name] = value end
  end
  return copy
end
local function_globals = copy_without(globals, "_G", "__redis__err__handler")
function_globals.redis = protect(copy_without(redis, "breakpoint", "debug", "replicate_commands"))
local of_libraries = { __index = function_globals, __newindex = refuse }
local library_environment = setmetatable({}, of_libraries)
real_of[library_environment] = function_globals
stand_ins[#stand_ins + 1] = library_environment
function_globals._G = library_environment
setmetatable(function_globals, { __index = undefined })

local registered
local function refuse_function(text) error({ err = "ERR " .. text }, 0) end
local function text_of(value)
  if type(value) == "string" then return value end
  return type(value) == "number" and tostring(value) or nil
end
local function take_flags(made, value)
  if type(value) ~= "table" then
    refuse_function("flags argument to redis.register_function must be a table representing function flags")
  end
  for i = 1, #value do
    if not host.flags[value[i]] then refuse_function("unknown flag given") end
    made.flags[value[i]] = true
  end
end
local function take_named(made, name, value)
  if name == "function_name" then
    made.name = text_of(value)
    if not made.name then refuse_function("function_name argument given to redis.register_function must be a string") end
  elseif name == "description" then
    made.description = text_of(value)
    if not made.description then refuse_function("description argument given to redis.register_function must be a string") end
  elseif name == "callback" then
    if type(value) ~= "function" then refuse_function("callback argument given to redis.register_function must be a function") end
    made.callback = value
  elseif name == "flags" then
    take_flags(made, value)
  else
    refuse_function("unknown argument given to redis.register_function")
  end
end
local function read_named(made, given)
  if type(given) ~= "table" then
    refuse_function("calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).")
  end
  for key, value in pairs(given) do
    local name = text_of(key)
    if not name then refuse_function("named argument key given to redis.register_function is not a string") end
    take_named(made, name:lower(), value)
  end
  if not made.name then refuse_function("redis.register_function must get a function name argument") end
  if not made.callback then refuse_function("redis.register_function must get a callback argument") end
end
local function register_function(...)
  local count = select("#", ...)
  if count < 1 or count > 2 then refuse_function("wrong number of arguments to redis.register_function") end
  local made = { flags = {} }
  if count == 1 then
    read_named(made, (...))
  else
    local name, callback = ...
    made.name, made.callback = text_of(name), callback
    if not made.name then refuse_function("first argument to redis.register_function must be a string") end
    if type(callback) ~= "function" then refuse_function("second argument to redis.register_function must be a function") end
  end
  if not made.name:find("^[%w_]+$") then
    refuse_function("Library names can only contain letters, numbers, or underscores(_) and must be at least one character long")
  end
  for i = 1, #registered do
    if registered[i].name == made.name then refuse_function("Function already exists in the library") end
  end
  registered[#registered + 1] = made
end
local load_redis = { register_function = register_function, log = redis.log }
for name, value in pairs(redis) do
  if name:find("^LOG_") or name:find("^REDIS_") then load_redis[name] = value end
end
setmetatable(load_redis, { __index = undefined })
local load_globals = setmetatable({ redis = protect(load_redis) }, { __index = undefined })

-- What the library registers: a list, or an error.
local function load_library(f)
  registered = {}
  of_libraries.__index = load_globals
  local ok, value = xpcall(f, handler)
  of_libraries.__index = function_globals
  clean()
  local made = registered
  registered = nil
  if ok then return made, nil end
  return nil, type(value) == "table" and value.err or value
end

return run, environment, globals, load_library, library_environment
