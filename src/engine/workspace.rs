//! The state that calls run on: what was loaded of each key, and what the
//! calls so far did to it.

use ahash::AHashMap;

use crate::model::{Effect, Key, Kind, UnixMs, Value, Version};

/// How much of a key's content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The key does not exist (or has expired by the store's clock).
    Absent,
    /// It exists and is of this type; its value was not loaded.
    Header(Kind),
    /// It exists and holds this.
    Value(Value),
}

/// What the store said of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The key's version; also set for an absent key that once existed.
    pub version: Version,
    /// Its content.
    pub content: Content,
    /// When it ends; `None` for an absent key and one that lives for ever.
    pub expires_at: Option<UnixMs>,
}

/// Keys as loaded, and the effects of the calls that ran on them since.
#[derive(Debug, Default)]
pub struct Workspace {
    loaded: AHashMap<Key, Loaded>,
    effects: AHashMap<Key, Effect>,
}

impl Workspace {
    /// Puts in what the store said of `key`.
    pub fn load(&mut self, key: Key, loaded: Loaded) {
        self.loaded.insert(key, loaded);
    }

    /// What the store said of `key`, if it was asked.
    pub fn loaded(&self, key: &Key) -> Option<&Loaded> {
        self.loaded.get(key)
    }

    /// What the calls so far did to `key`, if they did anything.
    pub fn effect(&self, key: &Key) -> Option<&Effect> {
        self.effects.get(key)
    }

    /// All effects so far, in no order.
    pub fn effects(&self) -> &AHashMap<Key, Effect> {
        &self.effects
    }

    /// Takes all effects out, in no order; what was loaded stays.
    pub fn take_effects(&mut self) -> AHashMap<Key, Effect> {
        std::mem::take(&mut self.effects)
    }
}
