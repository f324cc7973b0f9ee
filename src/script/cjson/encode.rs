//! Lua values to JSON.

use mlua::{Table, Value};

use super::super::api::type_name;
use super::super::number::format_g;
use super::{Invalid, Mistake, Settings};

/// Deeper tables than this are refused whatever the settings say: Rust's own stack ends.
const DEPTH_MAX: i64 = 2000;

/// `value` as JSON.
pub(super) fn encode(settings: &Settings, value: &Value) -> Result<Vec<u8>, Mistake> {
    let mut out = Vec::new();
    append(settings, value, 0, &mut out)?;
    Ok(out)
}

fn refused(value: &Value, reason: &str) -> Mistake {
    let name = type_name(value);
    Mistake::of(format!("Cannot serialise {name}: {reason}"))
}

fn append(
    settings: &Settings,
    value: &Value,
    depth: i64,
    out: &mut Vec<u8>,
) -> Result<(), Mistake> {
    match value {
        Value::String(text) => append_string(&text.as_bytes(), out),
        Value::Integer(number) => append_number(settings, *number as f64, value, out)?,
        Value::Number(number) => append_number(settings, *number, value, out)?,
        Value::Boolean(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Nil => out.extend_from_slice(b"null"),
        null if *null == Value::NULL => out.extend_from_slice(b"null"),
        Value::Table(table) => {
            let depth = depth + 1;
            if depth > settings.encode_depth_max.min(DEPTH_MAX) {
                return Err(Mistake::of(format!(
                    "Cannot serialise, excessive nesting ({depth})"
                )));
            }
            match array_length(settings, value, table)? {
                Some(length) => append_array(settings, table, length, depth, out)?,
                None => append_object(settings, table, depth, out)?,
            }
        }
        _ => return Err(refused(value, "type not supported")),
    }
    Ok(())
}

/// How long the array is that the table is; an empty table is none.
fn array_length(settings: &Settings, value: &Value, table: &Table) -> Result<Option<i64>, Mistake> {
    let (mut most, mut items) = (0_i64, 0_i64);
    for pair in table.pairs::<Value, Value>() {
        let index = match pair?.0 {
            Value::Integer(index) => index as f64,
            Value::Number(index) => index,
            _ => return Ok(None),
        };
        if index < 1.0 || index.floor() != index {
            return Ok(None);
        }
        most = most.max(i64::from(index as i32));
        items += 1;
    }
    let ratio = settings.sparse_ratio;
    if ratio > 0 && most > items * ratio && most > settings.sparse_safe {
        if !settings.sparse_convert {
            return Err(refused(value, "excessively sparse array"));
        }
        return Ok(None);
    }
    Ok((most > 0).then_some(most))
}

fn append_array(
    settings: &Settings,
    table: &Table,
    length: i64,
    depth: i64,
    out: &mut Vec<u8>,
) -> Result<(), Mistake> {
    out.push(b'[');
    for index in 1..=length {
        if index > 1 {
            out.push(b',');
        }
        append(settings, &table.raw_get(index)?, depth, out)?;
    }
    out.push(b']');
    Ok(())
}

fn append_object(
    settings: &Settings,
    table: &Table,
    depth: i64,
    out: &mut Vec<u8>,
) -> Result<(), Mistake> {
    out.push(b'{');
    for (count, pair) in table.pairs::<Value, Value>().enumerate() {
        let (key, value) = pair?;
        if count > 0 {
            out.push(b',');
        }
        match &key {
            Value::String(text) => append_string(&text.as_bytes(), out),
            Value::Number(_) | Value::Integer(_) => {
                out.push(b'"');
                append(settings, &key, depth, out)?;
                out.push(b'"');
            }
            _ => return Err(refused(&key, "table key must be a number or string")),
        }
        out.push(b':');
        append(settings, &value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn append_number(
    settings: &Settings,
    number: f64,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Mistake> {
    if !number.is_finite() {
        match settings.encode_invalid {
            Invalid::Refuse => return Err(refused(value, "must not be NaN or Inf")),
            Invalid::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Invalid::Write if number.is_nan() => {
                out.extend_from_slice(b"nan");
                return Ok(());
            }
            Invalid::Write => {}
        }
    }
    out.extend_from_slice(format_g(number, settings.precision).as_bytes());
    Ok(())
}

fn append_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=0x1f | 0x7f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
