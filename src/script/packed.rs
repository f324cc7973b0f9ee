//! The library `struct`: binary data by a format (Roberto Ierusalimschy's lua-struct 0.2).

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{number_of, text_of, type_name};
use super::number::to_integer;
use super::raise;

const INTEGER_MAX: usize = 32;
const ALIGNMENT: usize = 8;

/// A mistake: one of an argument (its number), or any.
enum Mistake {
    Argument(usize, String),
    Other(String),
}

type Made<T> = Result<T, Mistake>;

/// Its functions.
pub(super) fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let add = |name: &'static str,
               work: fn(&Lua, &MultiValue) -> mlua::Result<Made<MultiValue>>| {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let text = match work(lua, &args)? {
                Ok(values) => return Ok(values),
                Err(Mistake::Argument(at, text)) => {
                    format!("bad argument #{at} to '{name}' ({text})")
                }
                Err(Mistake::Other(text)) => text,
            };
            Err(raise::text(lua, text))
        })?;
        table.raw_set(name, function)
    };
    add("pack", |lua, args| {
        Ok(match pack(lua, args) {
            Ok(bytes) => {
                let text = Value::String(lua.create_string(bytes)?);
                Ok(MultiValue::from_iter([text]))
            }
            Err(mistake) => Err(mistake),
        })
    })?;
    add("unpack", unpack)?;
    add("size", |_, args| {
        Ok(size(args).map(|size| MultiValue::from_iter([Value::Number(size as f64)])))
    })?;
    Ok(table)
}

/// A format being read.
struct Format<'a> {
    rest: &'a [u8],
    is_big: bool,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Self {
        // In C it is a string: it ends at a zero.
        let end = text.iter().position(|byte| *byte == 0);
        Self {
            rest: &text[..end.unwrap_or(text.len())],
            is_big: false,
            align: 1,
        }
    }

    /// The next option, and the size of what it stands for.
    fn next(&mut self) -> Option<Made<(u8, usize)>> {
        let (option, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(self.size_of(*option).map(|size| (*option, size)))
    }

    fn size_of(&mut self, option: u8) -> Made<usize> {
        Ok(match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_MAX {
                    return Err(Mistake::Other(format!(
                        "integral size {size} is larger than limit of {INTEGER_MAX}"
                    )));
                }
                size
            }
            _ => 0,
        })
    }

    fn number(&mut self, default: usize) -> Made<usize> {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut number = 0_i32;
        while let Some((digit, rest)) = self.rest.split_first() {
            if !digit.is_ascii_digit() {
                break;
            }
            let digit = i32::from(digit - b'0');
            let more = number.checked_mul(10).and_then(|n| n.checked_add(digit));
            number = more.ok_or_else(|| Mistake::Other("integral size overflow".to_owned()))?;
            self.rest = rest;
        }
        Ok(number as usize)
    }

    /// How many bytes stand between, so that what follows is aligned.
    fn gap(&self, length: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.align);
        size.wrapping_sub(length & (size.wrapping_sub(1))) & size.wrapping_sub(1)
    }

    /// An option that stands for nothing in the data.
    fn control(&mut self, option: u8) -> Made<()> {
        match option {
            b' ' => {}
            b'>' => self.is_big = true,
            b'<' => self.is_big = false,
            b'!' => {
                let align = self.number(ALIGNMENT)?;
                if !align.is_power_of_two() {
                    return Err(Mistake::Other(format!(
                        "alignment {align} is not a power of 2"
                    )));
                }
                self.align = align;
            }
            _ => {
                let shown = char::from(option);
                return Err(Mistake::Argument(
                    1,
                    format!("invalid format option '{shown}'"),
                ));
            }
        }
        Ok(())
    }
}

fn string_at(args: &MultiValue, at: usize) -> Made<Vec<u8>> {
    let value = args.get(at - 1);
    value
        .and_then(text_of)
        .ok_or_else(|| wrong(value, at, "string"))
}

fn number_at(lua: &Lua, args: &MultiValue, at: usize) -> Made<f64> {
    let value = args.get(at - 1);
    value
        .and_then(|value| number_of(lua, value))
        .ok_or_else(|| wrong(value, at, "number"))
}

fn wrong(value: Option<&Value>, at: usize, expected: &str) -> Mistake {
    // In C a nil stands behind the arguments.
    let got = match (value, at) {
        (None, 1) => "no value",
        (value, _) => value.map_or("nil", type_name),
    };
    Mistake::Argument(at, format!("{expected} expected, got {got}"))
}

fn pack(lua: &Lua, args: &MultiValue) -> Made<Vec<u8>> {
    let text = string_at(args, 1)?;
    let mut format = Format::new(&text);
    let mut packed = Vec::new();
    let mut at = 2;
    // As in C this counts what the format says, which may be more than what is written.
    let mut total = 0_usize;
    while let Some(next) = format.next() {
        let (option, mut size) = next?;
        let gap = format.gap(total, option, size);
        total += gap;
        packed.resize(packed.len() + gap, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = number_at(lua, args, at)?;
                at += 1;
                put_integer(&mut packed, number, size, format.is_big);
            }
            b'x' => packed.push(0),
            b'f' | b'd' => {
                let number = number_at(lua, args, at)?;
                at += 1;
                put_float(&mut packed, number, option, format.is_big);
            }
            b'c' | b's' => {
                let string = string_at(args, at)?;
                at += 1;
                if size == 0 {
                    size = string.len();
                }
                if string.len() < size {
                    return Err(Mistake::Argument(at, "string too short".to_owned()));
                }
                packed.extend_from_slice(&string[..size]);
                if option == b's' {
                    packed.push(0);
                    size += 1;
                }
            }
            _ => format.control(option)?,
        }
        total += size;
    }
    Ok(packed)
}

fn put_integer(packed: &mut Vec<u8>, number: f64, size: usize, is_big: bool) {
    let value = match number < 0.0 {
        true => to_integer(number) as u64,
        // As the conversion of C on x86-64.
        false if number < 18_446_744_073_709_551_616.0 => number as u64,
        false => 0,
    };
    let byte = |index: usize| match index < 8 {
        true => (value >> (8 * index)) as u8,
        false => 0,
    };
    match is_big {
        true => packed.extend((0..size).rev().map(byte)),
        false => packed.extend((0..size).map(byte)),
    }
}

fn put_float(packed: &mut Vec<u8>, number: f64, option: u8, is_big: bool) {
    match (option, is_big) {
        (b'f', true) => packed.extend_from_slice(&(number as f32).to_be_bytes()),
        (b'f', false) => packed.extend_from_slice(&(number as f32).to_le_bytes()),
        (_, true) => packed.extend_from_slice(&number.to_be_bytes()),
        (_, false) => packed.extend_from_slice(&number.to_le_bytes()),
    }
}

fn get_integer(data: &[u8], is_signed: bool, is_big: bool) -> f64 {
    let take = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    let value = match is_big {
        true => data.iter().fold(0, take),
        false => data.iter().rev().fold(0, take),
    };
    if !is_signed {
        return value as f64;
    }
    let bits = data.len() * 8;
    if bits == 0 || bits >= 64 {
        return value as i64 as f64;
    }
    ((value << (64 - bits)) as i64 >> (64 - bits)) as f64
}

fn get_float(data: &[u8], is_big: bool) -> f64 {
    let mut bytes = data.to_vec();
    if is_big {
        bytes.reverse();
    }
    match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(short) => f64::from(f32::from_le_bytes(short)),
        Err(_) => <[u8; 8]>::try_from(&bytes[..]).map_or(0.0, f64::from_le_bytes),
    }
}

fn unpack(lua: &Lua, args: &MultiValue) -> mlua::Result<Made<MultiValue>> {
    let (text, data) = match (string_at(args, 1), string_at(args, 2)) {
        (Ok(text), Ok(data)) => (text, data),
        (Err(mistake), _) | (_, Err(mistake)) => return Ok(Err(mistake)),
    };
    let from = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        Some(_) => match number_at(lua, args, 3) {
            Ok(from) => from,
            Err(mistake) => return Ok(Err(mistake)),
        },
    };
    // A negative offset is a huge one in C.
    if from == 0.0 {
        let text = "offset must be 1 or greater".to_owned();
        return Ok(Err(Mistake::Argument(3, text)));
    }
    let position = (to_integer(from) as usize).wrapping_sub(1);
    let mut values = Vec::new();
    match unpack_from(lua, &text, &data, position, &mut values)? {
        Ok(next) => {
            values.push(Value::Number((next + 1) as f64));
            Ok(Ok(MultiValue::from_iter(values)))
        }
        Err(mistake) => Ok(Err(mistake)),
    }
}

/// More values than this do not fit on Lua's stack.
const VALUES_MAX: usize = 7000;

fn unpack_from(
    lua: &Lua,
    text: &[u8],
    data: &[u8],
    mut position: usize,
    values: &mut Vec<Value>,
) -> mlua::Result<Made<usize>> {
    let short = || Err(Mistake::Argument(2, "data string too short".to_owned()));
    let mut format = Format::new(text);
    while let Some(next) = format.next() {
        let (option, mut size) = match next {
            Ok(next) => next,
            Err(mistake) => return Ok(Err(mistake)),
        };
        position = position.wrapping_add(format.gap(position, option, size));
        if size > data.len() || position > data.len() - size {
            return Ok(short());
        }
        if values.len() >= VALUES_MAX {
            let text = "stack overflow (too many results)".to_owned();
            return Ok(Err(Mistake::Other(text)));
        }
        let part = &data[position..position + size];
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = get_integer(part, option.is_ascii_lowercase(), format.is_big);
                values.push(Value::Number(number));
            }
            b'x' => {}
            b'f' | b'd' => values.push(Value::Number(get_float(part, format.is_big))),
            b'c' => {
                if size == 0 {
                    let before = values.pop().and_then(|value| number_of(lua, &value));
                    let Some(before) = before else {
                        let text = "format 'c0' needs a previous size".to_owned();
                        return Ok(Err(Mistake::Other(text)));
                    };
                    size = to_integer(before) as usize;
                    if size > data.len() || position > data.len() - size {
                        return Ok(short());
                    }
                }
                let part = &data[position..position + size];
                values.push(Value::String(lua.create_string(part)?));
            }
            b's' => {
                let Some(end) = data[position..].iter().position(|byte| *byte == 0) else {
                    let text = "unfinished string in data".to_owned();
                    return Ok(Err(Mistake::Other(text)));
                };
                let part = &data[position..position + end];
                values.push(Value::String(lua.create_string(part)?));
                size = end + 1;
            }
            _ => {
                if let Err(mistake) = format.control(option) {
                    return Ok(Err(mistake));
                }
            }
        }
        position += size;
    }
    Ok(Ok(position))
}

fn size(args: &MultiValue) -> Made<usize> {
    let text = string_at(args, 1)?;
    let mut format = Format::new(&text);
    let mut total = 0;
    while let Some(next) = format.next() {
        let (option, size) = next?;
        total += format.gap(total, option, size);
        match (option, size) {
            (b's', _) => {
                let text = "option 's' has no fixed size".to_owned();
                return Err(Mistake::Argument(1, text));
            }
            (b'c', 0) => {
                let text = "option 'c0' has no fixed size".to_owned();
                return Err(Mistake::Argument(1, text));
            }
            _ if !option.is_ascii_alphanumeric() => format.control(option)?,
            _ => {}
        }
        total += size;
    }
    Ok(total)
}
