//! Errors that functions of Rust raise in scripts.
//!
//! Lua gets them as an object that only Rust can read. Whatever catches errors in a
//! script (`pcall`, `xpcall`, `coroutine.resume`) first turns it into [what Redis gives](value).

use std::fmt;

use mlua::{Lua, Value};

use super::convert;

/// An error that a script may catch.
#[derive(Debug)]
enum Raised {
    /// A string, as of the C libraries of Lua.
    Text(Vec<u8>),
    /// `{err = text}`, as of the library `redis`.
    Reply(Vec<u8>),
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Text(text) | Self::Reply(text)) = self;
        f.write_str(&String::from_utf8_lossy(text))
    }
}

impl std::error::Error for Raised {}

/// The error `text` behind the place where the script has called. One of an argument names
/// the function as the script does.
pub(super) fn text(lua: &Lua, text: impl AsRef<[u8]>) -> mlua::Error {
    let text = renamed(lua, text.as_ref());
    let place = lua.inspect_stack(1, |frame| {
        let line = frame.current_line()?;
        let source = frame.source();
        let name = source.short_src.map(|name| name.into_owned())?;
        Some(format!("{name}:{line}: "))
    });
    let mut whole = place.flatten().unwrap_or_default().into_bytes();
    whole.extend_from_slice(&text);
    mlua::Error::external(Raised::Text(whole))
}

/// The error `text`, without a place.
pub(super) fn bare(text: &str) -> mlua::Error {
    mlua::Error::external(Raised::Text(text.as_bytes().to_vec()))
}

/// `bad argument #1 to 'pack' (...)` with the name under which the function was called.
fn renamed(lua: &Lua, text: &[u8]) -> Vec<u8> {
    let rest = text.strip_prefix(b"bad argument #");
    let Some(open) = rest.and_then(|_| text.iter().position(|byte| *byte == b'\'')) else {
        return text.to_vec();
    };
    let close = text[open + 1..].iter().position(|byte| *byte == b'\'');
    let called = lua.inspect_stack(0, |frame| frame.names().name.map(|name| name.into_owned()));
    let called = called.flatten().unwrap_or_else(|| "?".to_owned());
    let after = close.map_or(text.len(), |close| open + 1 + close);
    [&text[..=open], called.as_bytes(), &text[after..]].concat()
}

/// The error `{err = text}`.
pub(super) fn reply(text: impl AsRef<[u8]>) -> mlua::Error {
    mlua::Error::external(Raised::Reply(text.as_ref().to_vec()))
}

/// What a script sees of an error.
pub(super) fn value(lua: &Lua, error: &mlua::Error) -> mlua::Result<Value> {
    match error {
        mlua::Error::CallbackError { cause, .. } => value(lua, cause),
        mlua::Error::ExternalError(inner) => match inner.downcast_ref::<Raised>() {
            Some(Raised::Reply(text)) => Ok(Value::Table(convert::error(lua, text)?)),
            Some(Raised::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
            None => Ok(Value::String(lua.create_string(inner.to_string())?)),
        },
        other => Ok(Value::String(lua.create_string(first_line(other))?)),
    }
}

/// What an error of Rust's side says, without where in Rust.
pub(super) fn first_line(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. }
        | mlua::Error::RuntimeError(message)
        | mlua::Error::MemoryError(message) => message.clone(),
        mlua::Error::CallbackError { cause, .. } => first_line(cause),
        other => other.to_string(),
    }
}
