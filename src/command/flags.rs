//! The flags of a command, with the names that `COMMAND INFO` gives them.

/// What Redis says of a command beside its arity and keys, as a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The set of the given bits, which are the constants of this module.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `bits` are in the set.
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// The names of the flags in the set, as `COMMAND INFO` writes them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| *name)
    }
}

/// No flag.
pub const PLAIN: u32 = 0;

macro_rules! flags {
    ($($bit:literal $constant:ident $name:literal $doc:literal;)*) => {
        $(#[doc = $doc] pub const $constant: u32 = 1 << $bit;)*
        /// The name of each bit, from the lowest.
        const NAMES: &[&str] = &[$($name),*];
    };
}

flags! {
    0 ADMIN "admin" "For administrators.";
    1 ALLOW_BUSY "allow_busy" "Answered while a script runs for too long.";
    2 ASKING "asking" "Accepted for a cluster slot that is being moved.";
    3 BLOCKING "blocking" "May make the client wait.";
    4 DENYOOM "denyoom" "Refused when memory is full.";
    5 FAST "fast" "Takes constant or logarithmic time.";
    6 LOADING "loading" "Answered while the data set is being loaded.";
    7 MOVABLEKEYS "movablekeys" "Keys stand at places that depend on other arguments.";
    8 NO_ASYNC_LOADING "no_async_loading" "Refused while a replica loads beside its old data.";
    9 NO_AUTH "no_auth" "Answered before the client has authenticated.";
    10 NO_MANDATORY_KEYS "no_mandatory_keys" "May come without keys, though it can have some.";
    11 NO_MULTI "no_multi" "Refused in a MULTI block.";
    12 NOSCRIPT "noscript" "Refused in a script.";
    13 PUBSUB "pubsub" "Belongs to publish and subscribe.";
    14 READONLY "readonly" "Only reads keys.";
    15 SKIP_MONITOR "skip_monitor" "Not shown by MONITOR.";
    16 SKIP_SLOWLOG "skip_slowlog" "Not kept in the slow log.";
    17 STALE "stale" "Answered by a replica that lost its master.";
    18 WRITE "write" "May change keys.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_bits() {
        let flags = Flags::new(WRITE | ADMIN | FAST);
        assert_eq!(
            flags.names().collect::<Vec<_>>(),
            ["admin", "fast", "write"]
        );
        assert!(flags.has(WRITE | FAST));
        assert!(!flags.has(READONLY));
        assert_eq!(Flags::new(PLAIN).names().count(), 0);
    }
}
