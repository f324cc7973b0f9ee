//! Why a call was refused, in Redis's words.

use bytes::Bytes;

use crate::command::{Command, args};
use crate::model::{NotLoaded, Reply};

/// An error of a call's arguments or of the data it met. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key holds a value of another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Options that do not exist, or not together.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or a value should have been an integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// An argument or a value should have been a number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The number of arguments is wrong in a way that the arity cannot say.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// An expiry that is not positive or beyond 64 bits of milliseconds.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(String),
    /// `RENAME` of a key that is not there.
    #[error("ERR no such key")]
    NoSuchKey,
    /// A database beyond the last.
    #[error("ERR DB index is out of range")]
    DbIndex,
    /// `COPY` or `MOVE` of a key onto itself.
    #[error("ERR source and destination objects are the same")]
    SameObject,
    /// `RESTORE` onto a key that is there.
    #[error("BUSYKEY Target key name already exists.")]
    BusyKey,
    /// A string would exceed [`super::STRING_MAX`].
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// Any other error of one command alone.
    #[error("{0}")]
    Other(&'static str),
    /// An option of the `EXPIRE` family that does not exist; the whole text.
    #[error("{}", String::from_utf8_lossy(.0))]
    Quoted(Bytes),
    /// The caller did not load what [`super::needs`] asked for: a fault of
    /// Freshet, told rather than answered as if the key were not there.
    #[error("ERR Freshet internal error: a key was used that was not loaded; nothing was changed")]
    NotLoaded,
}

impl Refusal {
    /// [`Refusal::ExpireTime`] for `command`.
    pub fn expire_time(command: &Command) -> Self {
        Self::ExpireTime(command.name.to_ascii_lowercase())
    }

    /// [`Refusal::Arity`] for `command`.
    pub fn arity(command: &Command) -> Self {
        Self::Arity(command.name.to_ascii_lowercase())
    }

    /// `ERR Unsupported option <option>`.
    pub fn unsupported_option(option: &[u8]) -> Self {
        let mut text = b"ERR Unsupported option ".to_vec();
        args::quote_into(&mut text, option, usize::MAX);
        Self::Quoted(Bytes::from(text))
    }
}

impl From<NotLoaded> for Refusal {
    fn from(_: NotLoaded) -> Self {
        Self::NotLoaded
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Quoted(text) => Self::Error(text),
            other => Self::error(other.to_string()),
        }
    }
}
