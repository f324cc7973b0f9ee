//! What can be run: a script, or a function of a library.

use std::sync::Arc;

use super::{Library, Script};

/// A script, or a function of a library.
#[derive(Clone, Debug)]
pub enum Program {
    /// A script.
    Script(Arc<Script>),
    /// The function of that number in a library.
    Function(Arc<Library>, usize),
}

impl Program {
    /// What errors call it: the SHA-1 of a script, the name of a function.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Script(script) => &script.sha,
            Self::Function(library, index) => &library.functions[*index].name,
        }
    }

    /// See [`Script::prefers_aside`].
    pub fn prefers_aside(&self) -> bool {
        match self {
            Self::Script(script) => script.prefers_aside(),
            Self::Function(library, index) => library.functions[*index].prefers_aside(),
        }
    }

    /// See [`Script::prefer_aside`].
    pub fn prefer_aside(&self, prefers: bool) {
        match self {
            Self::Script(script) => script.prefer_aside(prefers),
            Self::Function(library, index) => library.functions[*index].prefer_aside(prefers),
        }
    }
}
