//! HyperLogLog commands with likely and unlikely arguments; see `commands` for the pattern letters.

pub const PATTERNS: &[&str] = &[
    "PFADD k",
    "PFADD k a *a",
    "PFADD k a v v v v",
    "PFADD k v v v v v v v v v v v v v v v v v v v v",
    "PFADD k r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r r",
    "PFCOUNT k",
    "PFCOUNT k *k",
    "PFMERGE k *k",
    "PFMERGE k k k",
    "GET k",
    "STRLEN k",
    "DUMP k",
];
