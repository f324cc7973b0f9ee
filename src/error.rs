//! What every layer's errors say beside their text: whose fault it is, and what
//! to do next.

/// Which part an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The request: nothing but another request helps.
    Client,
    /// PostgreSQL, or the way to it.
    Store,
    /// Redis, or the way to it.
    Cache,
    /// Freshet itself.
    Proxy,
}

impl Side {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Store => "store",
            Self::Cache => "cache",
            Self::Proxy => "proxy",
        }
    }
}

/// What the one who got an error may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same again fails again.
    Never,
    /// Nothing was done; the same again may succeed.
    Safe,
    /// Whether it was done is not known: look first.
    Unknown,
}
