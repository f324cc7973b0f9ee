//! The library `cjson`: lua-cjson 2.1.0 with the settings that Redis ships.

mod decode;
mod encode;

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{bad, good, number_of, text_of, type_name};
use super::number::to_integer;
use super::raise;

/// What its settings say; each run begins with the defaults.
#[derive(Clone, Copy, Debug)]
struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth_max: i64,
    decode_depth_max: i64,
    encode_invalid: Invalid,
    decode_invalid: bool,
    keep_buffer: bool,
    precision: usize,
}

/// What becomes of NaN and infinities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalid {
    Refuse,
    Write,
    Null,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
            keep_buffer: true,
            precision: 14,
        }
    }
}

/// The settings of one Lua state.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Settings>>);

impl Shared {
    fn get(&self) -> Settings {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why something cannot be written or read.
enum Mistake {
    Text(String),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Mistake {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

impl Mistake {
    fn of(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// Its functions. `reset`, which scripts do not see, puts the settings back.
pub(super) fn functions(lua: &Lua) -> mlua::Result<Table> {
    let shared = Shared::default();
    let table = lua.create_table()?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    table.raw_set("null", Value::NULL)?;
    let on = shared.clone();
    let encode = lua.create_function(move |lua, args: MultiValue| {
        if args.len() != 1 {
            return bad(lua, "bad argument #1 to 'encode' (expected 1 argument)");
        }
        match encode::encode(&on.get(), &args[0]) {
            Ok(text) => good(Value::String(lua.create_string(text)?)),
            Err(Mistake::Text(text)) => bad(lua, text),
            Err(Mistake::Lua(error)) => Err(error),
        }
    })?;
    table.raw_set("encode", encode)?;
    let on = shared.clone();
    let decode = lua.create_function(move |lua, args: MultiValue| {
        if args.len() != 1 {
            return bad(lua, "bad argument #1 to 'decode' (expected 1 argument)");
        }
        let Some(text) = text_of(&args[0]) else {
            let got = type_name(&args[0]);
            return bad(
                lua,
                format!("bad argument #1 to 'decode' (string expected, got {got})"),
            );
        };
        match decode::decode(lua, &on.get(), &text) {
            Ok(value) => good(value),
            Err(Mistake::Text(text)) => bad(lua, text),
            Err(Mistake::Lua(error)) => Err(error),
        }
    })?;
    table.raw_set("decode", decode)?;
    provide_settings(lua, &table, &shared)?;
    Ok(table)
}

/// Reads and changes one setting: its name, the value it has, and how it changes.
type Number = (
    &'static str,
    i64,
    fn(&Settings) -> i64,
    fn(&mut Settings, i64),
);

const NUMBERS: [Number; 3] = [
    (
        "encode_max_depth",
        i32::MAX as i64,
        |settings| settings.encode_depth_max,
        |settings, depth| settings.encode_depth_max = depth,
    ),
    (
        "decode_max_depth",
        i32::MAX as i64,
        |settings| settings.decode_depth_max,
        |settings, depth| settings.decode_depth_max = depth,
    ),
    (
        "encode_number_precision",
        14,
        |settings| settings.precision as i64,
        |settings, digits| settings.precision = digits as usize,
    ),
];

fn provide_settings(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    for (name, most, get, set) in NUMBERS {
        let on = shared.clone();
        let function = lua.create_function(move |lua, args: MultiValue| {
            if args.len() > 1 {
                return too_many(lua, name, 2);
            }
            match integer(lua, &args, 0, (1, most)) {
                Ok(Some(number)) => on.change(|settings| set(settings, number)),
                Ok(None) => {}
                Err(text) => return bad(lua, format!("bad argument #1 to '{name}' ({text})")),
            }
            good(Value::Number(get(&on.get()) as f64))
        })?;
        table.raw_set(name, function)?;
    }
    let on = shared.clone();
    let keep = lua.create_function(move |lua, args: MultiValue| {
        match args.front() {
            None | Some(Value::Nil) => {}
            Some(Value::Boolean(flag)) => on.change(|settings| settings.keep_buffer = *flag),
            Some(_) => {
                let text = "bad argument #1 to 'encode_keep_buffer' (invalid option)";
                return bad(lua, text);
            }
        }
        good(Value::Boolean(on.get().keep_buffer))
    })?;
    table.raw_set("encode_keep_buffer", keep)?;
    provide_invalid(lua, table, shared)?;
    let on = shared.clone();
    let sparse = lua.create_function(move |lua, args: MultiValue| sparse(lua, &on, &args))?;
    table.raw_set("encode_sparse_array", sparse)?;
    let on = shared.clone();
    let reset = lua.create_function(move |_, ()| {
        on.change(|settings| *settings = Settings::default());
        Ok(())
    })?;
    table.raw_set("reset", reset)
}

fn provide_invalid(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let on = shared.clone();
    let encode = lua.create_function(move |lua, args: MultiValue| {
        let choice = match args.front() {
            None | Some(Value::Nil) => None,
            Some(Value::Boolean(false)) => Some(Invalid::Refuse),
            Some(Value::Boolean(true)) => Some(Invalid::Write),
            Some(value) => match text_of(value).as_deref() {
                Some(b"null") => Some(Invalid::Null),
                Some(b"off") => Some(Invalid::Refuse),
                Some(b"on") => Some(Invalid::Write),
                _ => {
                    let text = "bad argument #1 to 'encode_invalid_numbers' (invalid option)";
                    return bad(lua, text);
                }
            },
        };
        if let Some(choice) = choice {
            on.change(|settings| settings.encode_invalid = choice);
        }
        good(match on.get().encode_invalid {
            Invalid::Refuse => Value::Boolean(false),
            Invalid::Write => Value::Boolean(true),
            Invalid::Null => Value::String(lua.create_string("null")?),
        })
    })?;
    table.raw_set("encode_invalid_numbers", encode)?;
    let on = shared.clone();
    let decode = lua.create_function(move |lua, args: MultiValue| {
        match args.front() {
            None | Some(Value::Nil) => {}
            Some(Value::Boolean(flag)) => on.change(|settings| settings.decode_invalid = *flag),
            Some(_) => {
                let text = "bad argument #1 to 'decode_invalid_numbers' (invalid option)";
                return bad(lua, text);
            }
        }
        good(Value::Boolean(on.get().decode_invalid))
    })?;
    table.raw_set("decode_invalid_numbers", decode)
}

fn too_many(lua: &Lua, name: &str, at: usize) -> super::api::Given {
    bad(
        lua,
        format!("bad argument #{at} to '{name}' (found too many arguments)"),
    )
}

/// Argument `index` (from 0), an integer of a range, if it is there.
fn integer(
    lua: &Lua,
    args: &MultiValue,
    index: usize,
    (least, most): (i64, i64),
) -> Result<Option<i64>, String> {
    match args.get(index) {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => {
            let number = number_of(lua, value).map(to_integer);
            let got = type_name(value);
            let number = number.ok_or_else(|| format!("number expected, got {got}"))?;
            match (least..=most).contains(&number) {
                true => Ok(Some(number)),
                false => Err(format!("expected integer between {least} and {most}")),
            }
        }
    }
}

fn sparse(lua: &Lua, shared: &Shared, args: &MultiValue) -> mlua::Result<MultiValue> {
    let failed = |at: usize, text: &str| {
        let text = format!("bad argument #{at} to 'encode_sparse_array' ({text})");
        Err(raise::text(lua, text))
    };
    if args.len() > 3 {
        return failed(4, "found too many arguments");
    }
    match args.front() {
        None | Some(Value::Nil) => {}
        Some(Value::Boolean(flag)) => shared.change(|settings| settings.sparse_convert = *flag),
        Some(_) => return failed(1, "invalid option"),
    }
    let range = (0, i64::from(i32::MAX));
    match integer(lua, args, 1, range) {
        Ok(Some(ratio)) => shared.change(|settings| settings.sparse_ratio = ratio),
        Ok(None) => {}
        Err(text) => return failed(2, &text),
    }
    match integer(lua, args, 2, range) {
        Ok(Some(safe)) => shared.change(|settings| settings.sparse_safe = safe),
        Ok(None) => {}
        Err(text) => return failed(3, &text),
    }
    let settings = shared.get();
    Ok(MultiValue::from_iter([
        Value::Boolean(settings.sparse_convert),
        Value::Number(settings.sparse_ratio as f64),
        Value::Number(settings.sparse_safe as f64),
    ]))
}
