//! The libraries that run in Redis, under names of this build's own.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// A text with Lua functions.
pub(crate) struct Library {
    /// As it is written; the placeholder stands for the name.
    source: &'static str,
    placeholder: &'static str,
    /// Name and text as they are loaded.
    named: OnceLock<(String, String)>,
}

/// What runs in the cache.
static CACHE: Library = Library::new(include_str!("../functions.lua"), "freshet1");

/// What runs in the server of the journal.
pub(in crate::cache) static JOURNAL: Library =
    Library::new(include_str!("../journal.lua"), "freshetjournal1");

impl Library {
    const fn new(source: &'static str, placeholder: &'static str) -> Self {
        Self {
            source,
            placeholder,
            named: OnceLock::new(),
        }
    }

    /// The placeholder and eight hexadecimal digits that tell the text. So two builds that work on one server
    /// for the time of a rollout each call what they were tested with. (What both must agree on is
    /// what the keys hold: that is what the digit counts.)
    pub(crate) fn name(&self) -> &str {
        &self.named().0
    }

    /// The text to load.
    pub(crate) fn source(&self) -> &str {
        &self.named().1
    }

    fn named(&self) -> &(String, String) {
        self.named.get_or_init(|| {
            let digest = Sha256::digest(self.source.as_bytes());
            let [a, b, c, d] = [digest[0], digest[1], digest[2], digest[3]];
            let name = format!("{}_{a:02x}{b:02x}{c:02x}{d:02x}", self.placeholder);
            let text = self.source.replace(self.placeholder, &name);
            (name, text)
        })
    }
}

/// The name of the cache's library.
pub(crate) fn name() -> &'static str {
    CACHE.name()
}

/// The text of the cache's library.
pub(super) fn source() -> &'static str {
    CACHE.source()
}
