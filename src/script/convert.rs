//! Replies as Lua values, and Lua values as replies.

use bytes::Bytes;
use mlua::{Lua, Table, Value};

use super::number::to_integer;
use crate::model::{Protocol, Reply, format_double};

/// Deeper tables than this are cut off; Redis's own stack ends somewhat later.
const DEPTH_MAX: usize = 1000;

/// What a script gets for `reply`, if it has asked for that protocol.
pub fn to_lua(lua: &Lua, reply: Reply, protocol: Protocol) -> mlua::Result<Value> {
    let string = |bytes: &[u8]| Ok(Value::String(lua.create_string(bytes)?));
    let is_old = protocol == Protocol::Resp2;
    match reply {
        Reply::Simple(text) => single(lua, "ok", string(text.as_bytes())?),
        Reply::Status(text) => single(lua, "ok", string(&text)?),
        Reply::Error(text) => Ok(Value::Table(error(lua, &text)?)),
        Reply::Integer(number) => Ok(Value::Number(number as f64)),
        Reply::Bulk(bytes) => string(&bytes),
        Reply::Null | Reply::NullArray if is_old => Ok(Value::Boolean(false)),
        Reply::Null | Reply::NullArray => Ok(Value::Nil),
        Reply::Array(items) | Reply::Push(items) => array(lua, items, protocol),
        Reply::Set(items) if is_old => array(lua, items, protocol),
        Reply::Set(items) => {
            let set = lua.create_table()?;
            for item in items {
                set.raw_set(to_lua(lua, item, protocol)?, true)?;
            }
            single(lua, "set", Value::Table(set))
        }
        Reply::Map(pairs) if is_old => array(lua, flat(pairs), protocol),
        Reply::Pairs(pairs) if is_old => array(lua, flat(pairs), protocol),
        Reply::MapOfPairs(pairs) if is_old => array(lua, paired(pairs), protocol),
        Reply::Pairs(pairs) => array(lua, paired(pairs), protocol),
        Reply::Map(pairs) | Reply::MapOfPairs(pairs) => {
            let map = lua.create_table()?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, protocol)?, to_lua(lua, value, protocol)?)?;
            }
            single(lua, "map", Value::Table(map))
        }
        Reply::Double(number) if is_old => string(format_double(number).as_bytes()),
        Reply::Double(number) => single(lua, "double", Value::Number(number)),
        Reply::Decimal(digits) if is_old => string(&digits),
        Reply::Decimal(digits) => {
            let number = std::str::from_utf8(&digits).ok();
            let number = number.and_then(|digits| digits.parse().ok());
            single(lua, "double", Value::Number(number.unwrap_or(f64::NAN)))
        }
        Reply::Boolean(flag) if is_old => Ok(Value::Number(f64::from(u8::from(flag)))),
        Reply::Boolean(flag) => Ok(Value::Boolean(flag)),
        Reply::BigNumber(digits) if is_old => string(&digits),
        Reply::BigNumber(digits) => single(lua, "big_number", string(&digits)?),
        Reply::Verbatim(_, text) if is_old => string(&text),
        Reply::Verbatim(format, text) => {
            let verbatim = lua.create_table()?;
            verbatim.raw_set("format", lua.create_string(format)?)?;
            verbatim.raw_set("string", lua.create_string(&text)?)?;
            single(lua, "verbatim_string", Value::Table(verbatim))
        }
        // The engine encodes nothing.
        Reply::Raw(bytes) => string(&bytes),
    }
}

/// `{err = text}`, as `redis.pcall` gives it.
pub fn error(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(text)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

fn single(lua: &Lua, name: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

fn array(lua: &Lua, items: Vec<Reply>, protocol: Protocol) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (index, item) in items.into_iter().enumerate() {
        table.raw_set(index + 1, to_lua(lua, item, protocol)?)?;
    }
    Ok(Value::Table(table))
}

fn flat(pairs: Vec<(Reply, Reply)>) -> Vec<Reply> {
    pairs.into_iter().flat_map(<[Reply; 2]>::from).collect()
}

fn paired(pairs: Vec<(Reply, Reply)>) -> Vec<Reply> {
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| Reply::Array(<[Reply; 2]>::from(pair).into()))
        .collect()
}

/// The reply that a script's value is; `protocol` is the one that it has asked for.
pub fn to_reply(value: &Value, protocol: Protocol, depth: usize) -> mlua::Result<Reply> {
    Ok(match value {
        Value::String(text) => Reply::Bulk(bytes(text)),
        Value::Integer(number) => Reply::Integer(*number),
        Value::Number(number) => Reply::Integer(to_integer(*number)),
        Value::Boolean(flag) if protocol == Protocol::Resp3 => Reply::Boolean(*flag),
        Value::Boolean(true) => Reply::Integer(1),
        Value::Table(_) if depth >= DEPTH_MAX => Reply::error("ERR reached lua stack limit"),
        Value::Table(table) => of_table(table, protocol, depth)?,
        _ => Reply::Null,
    })
}

fn bytes(text: &mlua::String) -> Bytes {
    Bytes::copy_from_slice(&text.as_bytes())
}

/// A line of the protocol holds no line ends.
fn line(text: &mlua::String) -> Bytes {
    let text = text.as_bytes();
    let plain = |byte: &u8| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    };
    text.iter().map(plain).collect()
}

fn of_table(table: &Table, protocol: Protocol, depth: usize) -> mlua::Result<Reply> {
    if let Value::String(text) = table.raw_get("err")? {
        return Ok(Reply::Error(line(&text)));
    }
    if let Value::String(text) = table.raw_get("ok")? {
        return Ok(Reply::Status(line(&text)));
    }
    match table.raw_get("double")? {
        Value::Number(number) => return Ok(Reply::Double(number)),
        Value::Integer(number) => return Ok(Reply::Double(number as f64)),
        _ => {}
    }
    let inner = |value: &Value| to_reply(value, protocol, depth + 1);
    if let Value::Table(map) = table.raw_get("map")? {
        let mut pairs = Vec::new();
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            pairs.push((inner(&key)?, inner(&value)?));
        }
        return Ok(Reply::Map(pairs));
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let mut items = Vec::new();
        for pair in set.pairs::<Value, Value>() {
            items.push(inner(&pair?.0)?);
        }
        return Ok(Reply::Set(items));
    }
    if let Value::String(digits) = table.raw_get("big_number")? {
        return Ok(Reply::BigNumber(line(&digits)));
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let (Value::String(text), Value::String(format)) =
            (verbatim.raw_get("string")?, verbatim.raw_get("format")?)
    {
        let mut short = *b"   ";
        for (to, from) in short.iter_mut().zip(format.as_bytes().iter()) {
            *to = *from;
        }
        return Ok(Reply::Verbatim(short, bytes(&text)));
    }
    let mut items = Vec::new();
    loop {
        match table.raw_get(items.len() + 1)? {
            Value::Nil => return Ok(Reply::Array(items)),
            item => items.push(inner(&item)?),
        }
    }
}
