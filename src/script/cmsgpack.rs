//! The library `cmsgpack`: MessagePack, as antirez's lua-cmsgpack writes and reads it.

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{number_of, text_of, type_name};
use super::number::to_integer;
use super::raise;

/// Tables within tables deeper than this are written as nil.
const NESTING_MAX: usize = 16;
/// Deeper data than this is not read.
const READ_DEPTH_MAX: usize = 1000;
/// More values at the top than this do not fit on Lua's stack.
const VALUES_MAX: usize = 7000;

/// Its functions.
pub(super) fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    let all = lua.create_function(|lua, args: MultiValue| unpack(lua, "unpack", &args, None, 0))?;
    table.raw_set("unpack", all)?;
    let one = lua.create_function(|lua, args: MultiValue| {
        let offset = match optional(lua, &args, 1) {
            Ok(offset) => offset.unwrap_or(0),
            Err(got) => return wrong(lua, 2, "unpack_one", "number", got),
        };
        unpack(lua, "unpack_one", &args, Some(1), offset)
    })?;
    table.raw_set("unpack_one", one)?;
    let limited = lua.create_function(|lua, args: MultiValue| {
        let limit = match optional(lua, &args, 1) {
            Ok(Some(limit)) => limit,
            Ok(None) => {
                let got = if args.len() > 1 { "nil" } else { "no value" };
                return wrong(lua, 2, "unpack_limit", "number", got);
            }
            Err(got) => return wrong(lua, 2, "unpack_limit", "number", got),
        };
        let offset = match optional(lua, &args, 2) {
            Ok(offset) => offset.unwrap_or(0),
            Err(got) => return wrong(lua, 3, "unpack_limit", "number", got),
        };
        unpack(lua, "unpack_limit", &args, Some(limit), offset)
    })?;
    table.raw_set("unpack_limit", limited)?;
    Ok(table)
}

fn bad(lua: &Lua, text: &str) -> mlua::Result<MultiValue> {
    Err(raise::text(lua, text))
}

fn wrong(lua: &Lua, at: usize, name: &str, expected: &str, got: &str) -> mlua::Result<MultiValue> {
    bad(
        lua,
        &format!("bad argument #{at} to '{name}' ({expected} expected, got {got})"),
    )
}

/// Argument `index` (from 0) as an integer, if it is there.
fn optional(lua: &Lua, args: &MultiValue, index: usize) -> Result<Option<i64>, &'static str> {
    match args.get(index) {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => match number_of(lua, value) {
            Some(number) => Ok(Some(to_integer(number))),
            None => Err(type_name(value)),
        },
    }
}

fn pack(lua: &Lua, args: MultiValue) -> mlua::Result<MultiValue> {
    if args.is_empty() {
        return bad(
            lua,
            "bad argument #0 to 'pack' (MessagePack pack needs input.)",
        );
    }
    let mut out = Vec::new();
    for value in &args {
        write(value, 0, &mut out)?;
    }
    let packed = Value::String(lua.create_string(out)?);
    Ok(MultiValue::from_iter([packed]))
}

fn write(value: &Value, level: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    match value {
        Value::String(text) => {
            let text = text.as_bytes();
            header(out, text.len(), (0xa0, 31), &[0xd9, 0xda, 0xdb]);
            out.extend_from_slice(&text);
        }
        Value::Boolean(flag) => out.push(if *flag { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => write_integer(*number, out),
        Value::Number(number) => {
            // As the conversion of C: what does not fit compares as another number.
            let integer = to_integer(*number);
            let is_integer = number.is_finite() && integer as f64 == *number;
            match is_integer {
                true => write_integer(integer, out),
                false => write_double(*number, out),
            }
        }
        Value::Table(table) if level < NESTING_MAX => write_table(table, level, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

/// The length of something: in the first byte if it is at most so much, else behind one
/// of `wider` (for 1, 2 and 4 bytes; 0 where there is none).
fn header(out: &mut Vec<u8>, length: usize, (short, most): (u8, usize), wider: &[u8; 3]) {
    let [one, two, four] = *wider;
    if length <= most {
        out.push(short | length as u8);
    } else if length <= 0xff && one != 0 {
        out.extend_from_slice(&[one, length as u8]);
    } else if length <= 0xffff {
        out.push(two);
        out.extend_from_slice(&(length as u16).to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    match number {
        0..=127 => out.push(number as u8),
        128..=0xff => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&(number as u64).to_be_bytes());
        }
        -32..=-1 => out.push(number as i8 as u8),
        -128..=-33 => out.extend_from_slice(&[0xd0, number as i8 as u8]),
        -32768..=-129 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -2_147_483_648..=-32769 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn write_double(number: f64, out: &mut Vec<u8>) {
    let short = number as f32;
    if f64::from(short) == number {
        out.push(0xca);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn write_table(table: &Table, level: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    let pairs: Vec<(Value, Value)> = table.pairs().collect::<mlua::Result<_>>()?;
    let index = |key: &Value| match key {
        Value::Integer(number) => (*number > 0).then_some(*number as f64),
        Value::Number(number) => {
            let is_index = *number > 0.0 && f64::from(*number as i32) == *number;
            is_index.then_some(*number)
        }
        _ => None,
    };
    let highest = pairs.iter().try_fold(0.0_f64, |highest, (key, _)| {
        index(key).map(|index| highest.max(index))
    });
    if highest == Some(pairs.len() as f64) {
        header(out, pairs.len(), (0x90, 15), &[0, 0xdc, 0xdd]);
        for index in 1..=pairs.len() {
            write(&table.raw_get(index)?, level + 1, out)?;
        }
        return Ok(());
    }
    header(out, pairs.len(), (0x80, 15), &[0, 0xde, 0xdf]);
    for (key, value) in &pairs {
        write(key, level + 1, out)?;
        write(value, level + 1, out)?;
    }
    Ok(())
}

/// Why data cannot be read.
enum Broken {
    Short,
    Format,
    /// A key of a map that Lua does not take.
    Lua(&'static str),
    Error(mlua::Error),
}

impl From<mlua::Error> for Broken {
    fn from(error: mlua::Error) -> Self {
        Self::Error(error)
    }
}

fn unpack(
    lua: &Lua,
    name: &str,
    args: &MultiValue,
    limit: Option<i64>,
    offset: i64,
) -> mlua::Result<MultiValue> {
    let Some(data) = args.front().and_then(text_of) else {
        let got = args.front().map_or("no value", type_name);
        return wrong(lua, 1, name, "string", got);
    };
    let wanted = limit.unwrap_or(0);
    let length = data.len();
    if offset < 0 || wanted < 0 {
        return bad(
            lua,
            &format!("Invalid request to unpack with offset of {offset} and limit of {length}."),
        );
    }
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| data.get(at..)) else {
        return bad(
            lua,
            &format!("Start offset {offset} greater than input length {length}."),
        );
    };
    let is_all = wanted == 0 && offset == 0;
    let most = if is_all { i64::MAX } else { wanted };
    let mut reader = Reader { rest };
    let mut values = Vec::new();
    if !is_all {
        values.push(Value::Nil);
    }
    let first = values.len();
    while !reader.rest.is_empty() && ((values.len() - first) as i64) < most {
        if values.len() >= VALUES_MAX {
            return bad(lua, "stack overflow (in function mp_unpack_full)");
        }
        match reader.value(lua, 0) {
            Ok(value) => values.push(value),
            Err(Broken::Short) => return bad(lua, "Missing bytes in input."),
            Err(Broken::Format) => return bad(lua, "Bad data format in input."),
            Err(Broken::Lua(text)) => return Err(raise::bare(text)),
            Err(Broken::Error(error)) => return Err(error),
        }
    }
    if !is_all {
        let next = match reader.rest.len() {
            0 => -1.0,
            left => (length - left) as f64,
        };
        values[0] = Value::Number(next);
    }
    Ok(MultiValue::from_iter(values))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        if count > self.rest.len() {
            return Err(Broken::Short);
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64, Broken> {
        let taken = self.take(bytes)?;
        let join = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Ok(taken.iter().fold(0, join))
    }

    fn signed(&mut self, bytes: usize) -> Result<f64, Broken> {
        let shift = 64 - 8 * bytes;
        Ok(((self.unsigned(bytes)? << shift) as i64 >> shift) as f64)
    }

    fn value(&mut self, lua: &Lua, depth: usize) -> Result<Value, Broken> {
        if depth > READ_DEPTH_MAX {
            return Err(Broken::Format);
        }
        let first = self.take(1)?[0];
        let number = |number: f64| Ok(Value::Number(number));
        match first {
            0x00..=0x7f => number(f64::from(first)),
            0xe0..=0xff => number(f64::from(first as i8)),
            0x80..=0x8f => self.map(lua, usize::from(first & 0x0f), depth),
            0x90..=0x9f => self.array(lua, usize::from(first & 0x0f), depth),
            0xa0..=0xbf => self.string(lua, usize::from(first & 0x1f)),
            0xc0 => Ok(Value::Nil),
            0xc2 => Ok(Value::Boolean(false)),
            0xc3 => Ok(Value::Boolean(true)),
            0xca => number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => number(f64::from_bits(self.unsigned(8)?)),
            // Of 64 bits the highest is the sign, as in C.
            0xcc..=0xcf => number(self.unsigned(1 << (first - 0xcc))? as i64 as f64),
            0xd0..=0xd3 => number(self.signed(1 << (first - 0xd0))?),
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (first - 0xd9))? as usize;
                self.string(lua, length)
            }
            0xdc | 0xdd => {
                let length = self.unsigned(2 << (first - 0xdc))? as usize;
                self.array(lua, length, depth)
            }
            0xde | 0xdf => {
                let length = self.unsigned(2 << (first - 0xde))? as usize;
                self.map(lua, length, depth)
            }
            _ => Err(Broken::Format),
        }
    }

    fn string(&mut self, lua: &Lua, length: usize) -> Result<Value, Broken> {
        Ok(Value::String(lua.create_string(self.take(length)?)?))
    }

    fn array(&mut self, lua: &Lua, length: usize, depth: usize) -> Result<Value, Broken> {
        let table = lua.create_table()?;
        for index in 1..=length {
            table.raw_set(index, self.value(lua, depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, lua: &Lua, length: usize, depth: usize) -> Result<Value, Broken> {
        let table = lua.create_table()?;
        for _ in 0..length {
            let key = self.value(lua, depth + 1)?;
            let value = self.value(lua, depth + 1)?;
            match key {
                Value::Nil => return Err(Broken::Lua("table index is nil")),
                Value::Number(number) if number.is_nan() => {
                    return Err(Broken::Lua("table index is NaN"));
                }
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}
