//! The library `redis`, and what the prelude needs besides.

use bytes::Bytes;
use mlua::{Function, Lua, MultiValue, Table, Value};

use super::convert;
use super::interpreter::Desk;
use super::number::{Draw, format_g, to_integer};
use super::raise;
use super::session::Outcome;
use super::sha1_hex;
use crate::command::{Call, find};
use crate::model::{Protocol, Reply, Request};

/// The version of Redis whose library this is.
const VERSION: &str = "7.0.15";
const VERSION_NUMBER: i64 = 0x0007_000f;

/// More arguments of one command than this are refused.
const ARGUMENTS_MAX: usize = 1024 * 1024;

/// What a function gives to the script.
pub(super) type Given = mlua::Result<Value>;

/// A value of a function that succeeded.
pub(super) fn good(value: Value) -> Given {
    Ok(value)
}

/// An error of a C library, for the script that called.
pub(super) fn bad(lua: &Lua, text: impl AsRef<[u8]>) -> Given {
    Err(raise::text(lua, text))
}

/// An error of the library `redis`.
fn wrong(text: &str) -> Given {
    Err(raise::reply(text))
}

/// Puts everything into `host`.
pub(super) fn provide(lua: &Lua, host: &Table, desk: &Desk) -> mlua::Result<()> {
    host.raw_set("redis", functions(lua, desk)?)?;
    host.raw_set("constants", constants(lua)?)?;
    host.raw_set("math", math(lua, desk)?)?;
    for (name, raises) in [("call", true), ("pcall", false)] {
        let on = desk.clone();
        let function =
            lua.create_function(move |lua, args: MultiValue| match call(lua, &on, &args)? {
                Called::Value(value) => Ok(value),
                Called::Error(text) if raises => Err(raise::reply(text)),
                Called::Error(text) => Ok(Value::Table(convert::error(lua, &text)?)),
            })?;
        host.raw_set(name, function)?;
    }
    let control = desk.control.clone();
    let ended = lua.create_function(move |_, ()| Ok(control.look()))?;
    host.raw_set("ended", ended)?;
    host.raw_set("locate", lua.create_function(|lua, ()| Ok(locate(lua)))?)?;
    let describe = lua.create_function(|lua, caught: Value| match caught {
        Value::Error(error) => raise::value(lua, &error),
        other => Ok(other),
    })?;
    host.raw_set("describe", describe)?;
    host.raw_set("pairs_of", lua.create_function(pairs_of)?)?;
    host.raw_set("next_of", lua.create_function(next_of)?)?;
    host.raw_set("error_reply", lua.create_function(error_reply)?)?;
    host.raw_set("status_reply", lua.create_function(status_reply)?)
}

fn constants(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("REDIS_VERSION_NUM", VERSION_NUMBER),
    ] {
        table.raw_set(name, value as f64)?;
    }
    table.raw_set("REDIS_VERSION", VERSION)?;
    Ok(table)
}

/// Where the script was when it failed: the source and line of the innermost function that
/// is Lua and its own.
fn locate(lua: &Lua) -> (Option<String>, i32) {
    for level in 2.. {
        let place = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_ours = source.what == "C"
                || source.what == "tail"
                || source.source.as_deref() == Some("=freshet");
            let found = source.source.map(|text| text.into_owned());
            (!is_ours).then(|| (found, frame.current_line()))
        });
        match place {
            None => break,
            Some(None) => {}
            Some(Some((source, line))) => {
                let line = line.and_then(|line| i32::try_from(line).ok());
                return (source, line.unwrap_or(-1));
            }
        }
    }
    (None, -1)
}

/// Argument 1, which must be a table; of a stand-in (`real_of` names them) what it stands for.
fn iterated(lua: &Lua, real_of: &Table, name: &str, args: &MultiValue) -> mlua::Result<Table> {
    match args.front() {
        Some(Value::Table(table)) => match real_of.raw_get(table)? {
            Value::Table(real) => Ok(real),
            _ => Ok(table.clone()),
        },
        other => {
            let got = other.map_or("no value", type_name);
            let text = format!("bad argument #1 to '{name}' (table expected, got {got})");
            Err(raise::text(lua, text))
        }
    }
}

/// `pairs` that looks behind stand-ins.
fn pairs_of(lua: &Lua, (real_of, next): (Table, Function)) -> mlua::Result<Function> {
    lua.create_function(move |lua, args: MultiValue| {
        let table = iterated(lua, &real_of, "pairs", &args)?;
        Ok((next.clone(), table, Value::Nil))
    })
}

/// `next` that looks behind stand-ins.
fn next_of(lua: &Lua, (real_of, next): (Table, Function)) -> mlua::Result<Function> {
    lua.create_function(move |lua, args: MultiValue| {
        let table = iterated(lua, &real_of, "next", &args)?;
        let key = args.get(1).cloned().unwrap_or(Value::Nil);
        next.call::<MultiValue>((table, key))
    })
}

/// What a command of a script came to.
enum Called {
    Value(Value),
    Error(Bytes),
}

/// Runs a command of the script; an error where the run is over.
fn call(lua: &Lua, desk: &Desk, args: &MultiValue) -> mlua::Result<Called> {
    let wrong = |text: &'static str| Ok(Called::Error(Bytes::from_static(text.as_bytes())));
    if args.is_empty() {
        return wrong("ERR Please specify at least one argument for this redis lib call");
    }
    let Some(request) = request(args) else {
        return wrong("ERR Lua redis lib command arguments must be strings or integers");
    };
    // The time counts here too: a run may do little but call.
    if desk.control.look() {
        return Err(mlua::Error::runtime("the script was ended"));
    }
    let (outcome, protocol) = desk.with(|session| (session.call(request), session.protocol))?;
    match outcome {
        Outcome::Ended(ended) => {
            desk.control.end(ended);
            Err(mlua::Error::runtime("the script was ended"))
        }
        Outcome::Reply(Reply::Error(text)) => Ok(Called::Error(text)),
        Outcome::Reply(reply) => Ok(Called::Value(convert::to_lua(lua, reply, protocol)?)),
    }
}

/// The command that a script's arguments are.
fn request(args: &MultiValue) -> Option<Request> {
    if args.len() > ARGUMENTS_MAX {
        return None;
    }
    let words = args.iter().map(|arg| match arg {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Number(number) => Some(format_g(*number, 17).into_bytes()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        _ => None,
    });
    let words: Option<Vec<Vec<u8>>> = words.collect();
    let words = words?;
    let bytes = words.iter().map(Vec::len).sum::<usize>();
    (bytes < u32::MAX as usize / 2).then(|| Request::from_args(&words))
}

fn functions(lua: &Lua, desk: &Desk) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    let on = desk.clone();
    let log = lua.create_function(move |lua, args: MultiValue| log(lua, &on, &args))?;
    table.raw_set("log", log)?;
    let on = desk.clone();
    let setresp = lua.create_function(move |lua, args: MultiValue| setresp(lua, &on, &args))?;
    table.raw_set("setresp", setresp)?;
    table.raw_set("set_repl", lua.create_function(set_repl)?)?;
    let replicate = lua.create_function(|_, ()| good(Value::Boolean(true)))?;
    table.raw_set("replicate_commands", replicate)?;
    // There is no debugger to stop in.
    let breakpoint = lua.create_function(|_, ()| good(Value::Boolean(false)))?;
    table.raw_set("breakpoint", breakpoint)?;
    let debug = lua.create_function(|_, _: MultiValue| good(Value::Nil))?;
    table.raw_set("debug", debug)?;
    let on = desk.clone();
    let check = lua.create_function(move |_, args: MultiValue| acl_check(&on, &args))?;
    table.raw_set("acl_check_cmd", check)?;
    Ok(table)
}

/// A string, or a number as Lua writes it.
pub(super) fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Number(number) => Some(format_g(*number, 14).into_bytes()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// A number, or a string that Lua takes for one.
pub(super) fn number_of(lua: &Lua, value: &Value) -> Option<f64> {
    lua.coerce_number(value.clone()).ok().flatten()
}

fn sha1hex(lua: &Lua, args: MultiValue) -> Given {
    if args.len() != 1 {
        return wrong("ERR wrong number of arguments");
    }
    let text = args.front().and_then(text_of).unwrap_or_default();
    good(Value::String(lua.create_string(sha1_hex(&text))?))
}

fn log(lua: &Lua, desk: &Desk, args: &MultiValue) -> Given {
    if args.len() < 2 {
        return wrong("ERR redis.log() requires two arguments or more.");
    }
    let level = match &args[0] {
        level @ (Value::Number(_) | Value::Integer(_)) => number_of(lua, level),
        _ => None,
    };
    let Some(level) = level else {
        return wrong("ERR First argument must be a number (log level).");
    };
    let level = to_integer(level);
    let Some(level) = u8::try_from(level).ok().filter(|level| *level <= 3) else {
        return wrong("ERR Invalid debug level.");
    };
    let words: Vec<Vec<u8>> = args.iter().skip(1).filter_map(text_of).collect();
    desk.with(|session| session.log(level, &words.join(&b' ')))?;
    good(Value::Nil)
}

fn setresp(lua: &Lua, desk: &Desk, args: &MultiValue) -> Given {
    if args.len() != 1 {
        return wrong("ERR redis.setresp() requires one argument.");
    }
    let protocol = match number_of(lua, &args[0]) {
        Some(2.0) => Protocol::Resp2,
        Some(3.0) => Protocol::Resp3,
        _ => return wrong("ERR RESP version must be 2 or 3."),
    };
    desk.with(|session| session.protocol = protocol)?;
    good(Value::Nil)
}

fn set_repl(lua: &Lua, args: MultiValue) -> Given {
    if args.len() != 1 {
        return wrong("ERR redis.set_repl() requires two arguments.");
    }
    let flags = to_integer(number_of(lua, &args[0]).unwrap_or(0.0));
    if !(0..=3).contains(&flags) {
        return wrong(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        );
    }
    good(Value::Nil)
}

fn acl_check(desk: &Desk, args: &MultiValue) -> Given {
    if args.is_empty() {
        return wrong("ERR Please specify at least one argument for this redis lib call");
    }
    let Some(request) = request(args) else {
        return wrong("ERR Lua redis lib command arguments must be strings or integers");
    };
    let Ok(command) = find(&request) else {
        return wrong("ERR Invalid command passed to redis.acl_check_cmd()");
    };
    let call = Call::new(command, request);
    let denied = desk.with(|session| session.denied(&call))?;
    good(Value::Boolean(denied.is_none()))
}

fn only_string(args: &MultiValue) -> Option<Vec<u8>> {
    match (args.len(), args.front()) {
        (1, Some(Value::String(text))) => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

fn error_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_string(&args) else {
        return convert::error(lua, b"ERR wrong number or type of arguments");
    };
    let text = text.strip_prefix(b"-").unwrap_or(&text);
    let mut whole = Vec::new();
    if !text.contains(&b' ') {
        whole.extend_from_slice(b"ERR ");
    }
    whole.extend_from_slice(text);
    let table = lua.create_table()?;
    table.raw_set("err", lua.create_string(whole)?)?;
    Ok(table)
}

fn status_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_string(&args) else {
        return convert::error(lua, b"ERR wrong number or type of arguments");
    };
    let table = lua.create_table()?;
    table.raw_set("ok", lua.create_string(text)?)?;
    Ok(table)
}

/// `math.random` and `math.randomseed` as Redis has them: the same numbers everywhere.
fn math(lua: &Lua, desk: &Desk) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let on = desk.clone();
    let random = lua.create_function(move |lua, args: MultiValue| {
        let drawn = on.with(|session| session.draw.next())?;
        let mut bounds = Vec::new();
        for (index, arg) in args.iter().enumerate().take(2) {
            match number_of(lua, arg) {
                Some(number) => bounds.push(to_integer(number)),
                None => return wrong_argument(lua, index + 1, "random", "number", arg),
            }
        }
        let (low, high, last) = match (args.len(), &bounds[..]) {
            (0, _) => return good(Value::Number(drawn)),
            (1, [high]) => (1, *high, 1),
            (2, [low, high]) => (*low, *high, 2),
            _ => return bad(lua, "wrong number of arguments"),
        };
        if low > high {
            return bad(
                lua,
                format!("bad argument #{last} to 'random' (interval is empty)"),
            );
        }
        let width = (high as f64) - (low as f64) + 1.0;
        good(Value::Number((drawn * width).floor() + low as f64))
    })?;
    table.raw_set("random", random)?;
    let on = desk.clone();
    let seed = lua.create_function(move |lua, arg: Value| match number_of(lua, &arg) {
        Some(seed) => {
            on.with(|session| session.draw = Draw::new(to_integer(seed) as i32))?;
            good(Value::Nil)
        }
        None => wrong_argument(lua, 1, "randomseed", "number", &arg),
    })?;
    table.raw_set("randomseed", seed)?;
    Ok(table)
}

/// `bad argument #1 to 'f' (number expected, got nil)`.
pub(super) fn wrong_argument(
    lua: &Lua,
    index: usize,
    function: &str,
    expected: &str,
    got: &Value,
) -> Given {
    let got = type_name(got);
    bad(
        lua,
        format!("bad argument #{index} to '{function}' ({expected} expected, got {got})"),
    )
}

/// The type as Lua calls it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) | Value::Number(_) => "number",
        Value::LightUserData(_) | Value::UserData(_) | Value::Error(_) => "userdata",
        other => other.type_name(),
    }
}
