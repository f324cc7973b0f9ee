//! What can go wrong in the cache, sorted by what to do next.

/// A failed use of the cache.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// No connection could be had.
    #[error("Redis is unreachable: {0}")]
    Unreachable(String),
    /// The connection ended or was given up before the answer came. All calls
    /// are idempotent: they may be sent again.
    #[error("the connection to Redis was lost: {0}")]
    Lost(String),
    /// The server is another one than the store has on record, or not a primary.
    #[error("Redis is not the server that holds this generation: {0}")]
    Stranger(String),
    /// The cache holds another generation, or was flushed.
    #[error("{0}")]
    Fenced(String),
    /// The cache is full and may not evict; nothing was changed.
    #[error("Redis is out of memory")]
    Full,
    /// Redis answered with an error that no part of the protocol expects.
    #[error("Redis refused: {0}")]
    Refused(String),
}

impl CacheError {
    /// Sorts an error reply (without its dash).
    pub(super) fn from_reply(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text).into_owned();
        let code = text.split(' ').next().unwrap_or_default();
        match code {
            "FENCED" => Self::Fenced(text),
            "OOM" => Self::Full,
            "READONLY" | "MASTERDOWN" => Self::Stranger(text),
            "LOADING" => Self::Unreachable(text),
            _ => Self::Refused(text),
        }
    }
}
