//! The library `bit`: LuaBitOp 1.0.2 (`https://bitop.luajit.org/api.html`).

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{Given, good, number_of, wrong_argument};
use super::number::to_integer;

/// What a function of one or of two numbers does with their bits, by its name.
type OfOne = (&'static str, fn(u32) -> u32);
type OfTwo = (&'static str, fn(u32, u32) -> u32);

/// Its functions.
pub(super) fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let folds: [OfTwo; 3] = [
        ("band", |one, other| one & other),
        ("bor", |one, other| one | other),
        ("bxor", |one, other| one ^ other),
    ];
    for (name, fold) in folds {
        let function = lua.create_function(move |lua, args: MultiValue| {
            let mut result = match bits(lua, &args, 0) {
                Some(first) => first,
                None => return no_number(lua, name, &args, 0),
            };
            for index in 1..args.len() {
                match bits(lua, &args, index) {
                    Some(next) => result = fold(result, next),
                    None => return no_number(lua, name, &args, index),
                }
            }
            number(result)
        })?;
        table.raw_set(name, function)?;
    }
    let shifts: [OfTwo; 5] = [
        ("lshift", |bits, by| bits << by),
        ("rshift", |bits, by| bits >> by),
        ("arshift", |bits, by| (bits as i32 >> by) as u32),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, shift) in shifts {
        let function = lua.create_function(move |lua, args: MultiValue| {
            match (bits(lua, &args, 0), bits(lua, &args, 1)) {
                (Some(value), Some(by)) => number(shift(value, by & 31)),
                (None, _) => no_number(lua, name, &args, 0),
                (_, None) => no_number(lua, name, &args, 1),
            }
        })?;
        table.raw_set(name, function)?;
    }
    let singles: [OfOne; 3] = [
        ("tobit", |bits| bits),
        ("bnot", |bits| !bits),
        ("bswap", u32::swap_bytes),
    ];
    for (name, change) in singles {
        let function =
            lua.create_function(move |lua, args: MultiValue| match bits(lua, &args, 0) {
                Some(value) => number(change(value)),
                None => no_number(lua, name, &args, 0),
            })?;
        table.raw_set(name, function)?;
    }
    table.raw_set("tohex", lua.create_function(to_hex)?)?;
    Ok(table)
}

/// Argument `index` as bits, by the trick of the C library: added to this, a number has
/// its lowest 32 bits of the integer at the end.
fn bits(lua: &Lua, args: &MultiValue, index: usize) -> Option<u32> {
    let number = number_of(lua, args.get(index)?)?;
    Some((number + 6_755_399_441_055_744.0).to_bits() as u32)
}

fn number(bits: u32) -> Given {
    good(Value::Number(f64::from(bits as i32)))
}

fn no_number(lua: &Lua, name: &str, args: &MultiValue, index: usize) -> Given {
    match args.get(index) {
        Some(value) => wrong_argument(lua, index + 1, name, "number", value),
        None => super::api::bad(
            lua,
            format!(
                "bad argument #{} to '{name}' (number expected, got no value)",
                index + 1
            ),
        ),
    }
}

fn to_hex(lua: &Lua, args: MultiValue) -> Given {
    let Some(value) = bits(lua, &args, 0) else {
        return no_number(lua, "tohex", &args, 0);
    };
    let digits = match args.get(1) {
        None => 8,
        Some(digits) => match number_of(lua, digits) {
            Some(digits) => to_integer(digits) as i32,
            None => return wrong_argument(lua, 2, "tohex", "number", digits),
        },
    };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = match digits < 0 {
        true => format!("{value:08X}"),
        false => format!("{value:08x}"),
    };
    good(Value::String(lua.create_string(&text[8 - count..])?))
}
