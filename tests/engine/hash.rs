//! Hash commands with likely and unlikely arguments; see `commands` for the pattern letters.

pub const PATTERNS: &[&str] = &[
    "HSET k a v ?a ?v",
    "HSET k a v a v a v",
    "HGET k a",
    "HDEL k a *a",
    "HLEN k",
    "HGETALL k",
];
