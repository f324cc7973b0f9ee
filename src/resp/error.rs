//! What can be wrong with received bytes.

use bytes::Bytes;
use thiserror::Error;

use crate::model::Reply;

/// A request that is not one; Redis's own texts. The connection is closed after it was told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The number behind `*` is none, or beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// More arguments than somebody may send who has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// 64 KB behind `*` without a line end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    /// 64 KB behind `$` without a line end.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// An argument that does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The number behind `$` is none, negative, or beyond the limit.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// A longer argument than somebody may send who has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An inline command with a quote that is not closed, or not followed by a space.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// 64 KB without a line end.
    #[error("Protocol error: too big inline request")]
    InlineLine,
    /// The arguments of one request together exceed the limit. (Redis closes without a word.)
    #[error("Protocol error: request exceeds the query buffer limit")]
    RequestLength,
}

impl RequestError {
    /// What the client is told before its connection is closed.
    pub fn reply(self) -> Reply {
        let mut text = format!("ERR {self}").into_bytes();
        if let Self::ExpectedBulk(byte) = self {
            // The client's own byte, which need not be UTF-8.
            text.truncate(text.len() - char::from(byte).len_utf8() - 1);
            text.extend([byte, b'\'']);
        }
        Reply::Error(Bytes::from(text))
    }
}

/// Bytes from the cache that are no reply; nothing behind them can be understood.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// No reply begins with this byte.
    #[error("a reply cannot begin with byte {0:#04x}")]
    Kind(u8),
    /// A length or number that is none, or beyond all bounds.
    #[error("a reply has an invalid length or number")]
    Number,
    /// A line end or terminator is missing where it must be.
    #[error("a reply is not ended as it must be")]
    Terminator,
    /// More than 1 MB without a line end.
    #[error("a reply has a line of more than 1 MB")]
    Line,
    /// Aggregates within aggregates beyond the bound.
    #[error("a reply is nested too deeply")]
    Depth,
    /// The bytes are not exactly one reply.
    #[error("the bytes are not exactly one reply")]
    Extent,
}
