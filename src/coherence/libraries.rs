//! The libraries of functions that all proxies share.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;

use super::{Refusal, Scripts};
use crate::model::Reply;
use crate::script::{Library, Program};

/// Tries of a change that others disturbed.
const TRIES: u32 = 8;

/// All libraries, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    by_name: BTreeMap<Arc<str>, Arc<Library>>,
    /// By their names in small letters.
    functions: AHashMap<String, (Arc<Library>, usize)>,
}

/// What becomes of libraries that are there when others are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They go.
    Flush,
    /// They stay; one of the same name is in the way.
    Append,
    /// One of the same name is replaced.
    Replace,
}

impl Libraries {
    /// All of them, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.by_name.values()
    }

    /// The function of that name, in any case of letters.
    pub fn function(&self, name: &[u8]) -> Option<Program> {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let (library, index) = self.functions.get(&name)?;
        Some(Program::Function(Arc::clone(library), *index))
    }

    /// How many functions there are.
    pub fn functions(&self) -> usize {
        self.functions.len()
    }

    fn add(&mut self, library: Arc<Library>, existing: Existing) -> Result<(), Reply> {
        let name = &library.name;
        if self.by_name.contains_key(name) {
            if existing != Existing::Replace {
                return Err(Reply::error(format!("ERR Library {name} already exists")));
            }
            self.remove(name);
        }
        for (index, function) in library.functions.iter().enumerate() {
            let key = function.name.to_ascii_lowercase();
            if self.functions.contains_key(&key) {
                let name = &function.name;
                return Err(Reply::error(format!("ERR Function {name} already exists")));
            }
            self.functions.insert(key, (Arc::clone(&library), index));
        }
        self.by_name.insert(Arc::clone(name), library);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some(library) = self.by_name.remove(name) else {
            return false;
        };
        self.functions
            .retain(|_, (of, _)| !Arc::ptr_eq(of, &library));
        true
    }
}

impl Scripts {
    /// All libraries, as the store has them.
    pub async fn libraries(&self) -> Result<Arc<Libraries>, Reply> {
        self.reload().await.map(|(_, libraries)| libraries)
    }

    /// The function of that name; one that is not known here may be new in the store.
    pub async fn function(&self, name: &[u8]) -> Result<Program, Reply> {
        if let Some(program) = self.known_libraries().function(name) {
            return Ok(program);
        }
        let libraries = self.libraries().await?;
        let found = libraries.function(name);
        found.ok_or_else(|| Reply::error("ERR Function not found"))
    }

    /// `FUNCTION LOAD`: the library's name.
    pub async fn load_library(&self, code: &[u8], existing: Existing) -> Result<Arc<str>, Reply> {
        let library = Arc::new(self.pool().library(code)?);
        let name = Arc::clone(&library.name);
        self.change(|libraries| {
            let added = libraries.add(Arc::clone(&library), existing);
            added.map_err(
                |error| match libraries.by_name.contains_key(&library.name) {
                    true if existing == Existing::Append => {
                        let name = &library.name;
                        Reply::error(format!("ERR Library '{name}' already exists"))
                    }
                    _ => error,
                },
            )
        })
        .await?;
        Ok(name)
    }

    /// `FUNCTION DELETE`.
    pub async fn delete_library(&self, name: &str) -> Result<(), Reply> {
        self.change(|libraries| match libraries.remove(name) {
            true => Ok(()),
            false => Err(Reply::error("ERR Library not found")),
        })
        .await
    }

    /// `FUNCTION RESTORE`, and `FUNCTION FLUSH` with none.
    pub async fn restore_libraries(
        &self,
        codes: &[bytes::Bytes],
        existing: Existing,
    ) -> Result<(), Reply> {
        let restored: Result<Vec<_>, Reply> = codes
            .iter()
            .map(|code| self.pool().library(code).map(Arc::new))
            .collect();
        let restored = restored?;
        self.change(|libraries| {
            if existing == Existing::Flush {
                *libraries = Libraries::default();
            }
            let mut added = restored.iter();
            added.try_for_each(|library| libraries.add(Arc::clone(library), existing))
        })
        .await
    }

    /// Changes all libraries at once, for all proxies.
    async fn change(
        &self,
        change: impl Fn(&mut Libraries) -> Result<(), Reply>,
    ) -> Result<(), Reply> {
        for _ in 0..TRIES {
            let (epoch, before) = self.reload().await?;
            let mut changed = Libraries::clone(&before);
            change(&mut changed)?;
            let all: Vec<(&str, &[u8])> = changed
                .all()
                .map(|library| (&*library.name, &library.code[..]))
                .collect();
            let replaced = self.store().replace_libraries(epoch, &all).await;
            let replaced =
                replaced.map_err(|error| Refusal::StoreAway(error.to_string()).reply())?;
            if replaced {
                self.learn(epoch + 1, Arc::new(changed));
                return Ok(());
            }
        }
        Err(Refusal::Contended.reply())
    }

    /// What the store has, and its epoch.
    async fn reload(&self) -> Result<(i64, Arc<Libraries>), Reply> {
        let read = self.store().libraries().await;
        let (epochs, codes) =
            read.map_err(|error| Refusal::ReadsAway(error.to_string()).reply())?;
        let known = self.known_libraries();
        if self.libraries_epoch() == Some(epochs.libraries) {
            return Ok((epochs.libraries, known));
        }
        let mut libraries = Libraries::default();
        for code in codes {
            let kept = known.all().find(|library| library.code[..] == code[..]);
            let library = match kept {
                Some(library) => Arc::clone(library),
                None => Arc::new(self.pool().library(&code)?),
            };
            libraries.add(library, Existing::Append)?;
        }
        let libraries = Arc::new(libraries);
        self.learn(epochs.libraries, Arc::clone(&libraries));
        Ok((epochs.libraries, libraries))
    }

    /// Learns what another proxy has changed.
    pub(super) async fn follow_libraries(&self, epoch: i64) {
        if self.libraries_epoch() != Some(epoch)
            && let Err(error) = self.reload().await
        {
            tracing::debug!(?error, "libraries are not read again");
        }
    }
}
