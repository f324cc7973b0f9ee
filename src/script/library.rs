//! Libraries of functions (`FUNCTION LOAD`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::body::{Flags, sha1_hex};
use crate::model::Reply;

/// A function of a library.
#[derive(Debug)]
pub struct Function {
    /// As it was registered; it is called in any case of letters.
    pub name: Arc<str>,
    /// What was said of it.
    pub description: Option<Bytes>,
    /// What it says of itself.
    pub flags: Flags,
    /// The same by name.
    pub flag_names: Vec<&'static str>,
    /// As of a script.
    prefers_aside: AtomicBool,
}

impl Function {
    /// One that was registered.
    pub(super) fn new(
        name: &str,
        description: Option<Bytes>,
        flag_names: Vec<&'static str>,
    ) -> Self {
        Self {
            name: Arc::from(name),
            description,
            flags: Flags {
                no_writes: flag_names.contains(&"no-writes"),
            },
            flag_names,
            prefers_aside: AtomicBool::new(false),
        }
    }

    /// See [`super::Script::prefers_aside`].
    pub fn prefers_aside(&self) -> bool {
        self.prefers_aside.load(Ordering::Relaxed)
    }

    /// See [`super::Script::prefer_aside`].
    pub fn prefer_aside(&self, prefers: bool) {
        self.prefers_aside.store(prefers, Ordering::Relaxed);
    }
}

/// A library that was run once, to learn what it registers.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: Arc<str>,
    /// All that was sent.
    pub code: Bytes,
    /// The SHA-1 of the code.
    pub sha: Arc<str>,
    /// What it registers, in that order.
    pub functions: Vec<Function>,
}

/// The name that `code` gives itself in its first line, and where Lua begins.
///
/// # Errors
/// What Redis says of a first line that it does not understand.
pub fn metadata(code: &[u8]) -> Result<(Arc<str>, usize), Reply> {
    if !code.starts_with(b"#!") {
        return Err(Reply::error("ERR Missing library metadata"));
    }
    let Some(end) = code.iter().position(|byte| *byte == b'\n') else {
        return Err(Reply::error("ERR Invalid library metadata"));
    };
    let mut words = code[2..end]
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let engine = words.next().unwrap_or_default();
    let mut name = None;
    for word in words {
        match word.strip_prefix(b"name=") {
            Some(_) if name.is_some() => {
                return Err(Reply::error(
                    "ERR Invalid metadata value, name argument was given multiple times",
                ));
            }
            Some(given) => name = Some(given),
            None => return Err(quoted("ERR Invalid metadata value given: ", word, "")),
        }
    }
    let name = name.ok_or_else(|| Reply::error("ERR Library name was not given"))?;
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || !name.iter().all(is_good) {
        return Err(Reply::error(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at \
             least one character long",
        ));
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(quoted("ERR Engine '", engine, "' not found"));
    }
    Ok((Arc::from(String::from_utf8_lossy(name)), end))
}

fn quoted(before: &str, word: &[u8], after: &str) -> Reply {
    let word = String::from_utf8_lossy(word);
    Reply::error(format!("{before}{word}{after}"))
}

impl Library {
    /// One that registers these.
    pub(super) fn new(name: Arc<str>, code: &[u8], functions: Vec<Function>) -> Self {
        Self {
            name,
            code: Bytes::copy_from_slice(code),
            sha: Arc::from(sha1_hex(code)),
            functions,
        }
    }
}
