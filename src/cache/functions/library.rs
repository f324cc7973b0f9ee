//! The library that runs in the cache, under a name of this build's own.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// As it is written; `freshet1` stands for the name.
const SOURCE: &str = include_str!("../functions.lua");
const PLACEHOLDER: &str = "freshet1";

/// `freshet1_` and eight hexadecimal digits that tell its text. So two builds that work on one cache for
/// the time of a rollout each call what they were tested with. (What both must agree on is
/// what the keys hold: that is what the digit counts.)
pub(crate) fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let digest = Sha256::digest(SOURCE.as_bytes());
        let [a, b, c, d] = [digest[0], digest[1], digest[2], digest[3]];
        format!("{PLACEHOLDER}_{a:02x}{b:02x}{c:02x}{d:02x}")
    })
}

/// The text to load.
pub(super) fn source() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| SOURCE.replace(PLACEHOLDER, name()))
}
