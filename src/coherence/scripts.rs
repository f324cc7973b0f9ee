//! The scripts that this proxy knows, and those that the store keeps for all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::Refusal;
use crate::model::Reply;
use crate::script::{Pool, Script, sha1_hex};
use crate::store::{Epochs, Store, StoreError};

/// Scripts that a proxy keeps, and bytes of them.
const SCRIPTS_MAX: usize = 4096;
const BYTES_MAX: usize = 64 << 20;

/// A script that is in use is told to the store so often, lest it is purged.
const USE_TOLD_EVERY: Duration = Duration::from_secs(3600);

/// Between two looks whether another proxy has flushed scripts or changed libraries.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two purges, and scripts that only `EVAL` brought and that are kept in the store.
const PURGE_EVERY: u64 = 600;
const EVALUATED_MAX: i64 = 10_000;

/// All scripts that can be run by their name.
pub struct Scripts {
    store: Arc<Store>,
    pool: Arc<Pool>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    scripts: AHashMap<Arc<str>, Entry>,
    bytes: usize,
    epochs: Epochs,
}

struct Entry {
    script: Arc<Script>,
    /// When the store was told of a use last.
    told: Instant,
}

impl Known {
    fn keep(&mut self, script: Arc<Script>) {
        self.bytes += script.body.len();
        let told = Instant::now();
        let sha = Arc::clone(&script.sha);
        if let Some(before) = self.scripts.insert(sha, Entry { script, told }) {
            self.bytes -= before.script.body.len();
        }
        while self.scripts.len() > SCRIPTS_MAX || self.bytes > BYTES_MAX && self.scripts.len() > 1 {
            let entries = self.scripts.iter();
            let oldest = entries.min_by_key(|(_, entry)| entry.told);
            let Some(oldest) = oldest.map(|(sha, _)| Arc::clone(sha)) else {
                return;
            };
            if let Some(gone) = self.scripts.remove(&oldest) {
                self.bytes -= gone.script.body.len();
            }
        }
    }
}

impl Scripts {
    /// Those of `store`; scripts run in Lua states of `pool`.
    pub fn new(store: Arc<Store>, pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            store,
            pool,
            known: Mutex::default(),
        })
    }

    /// Where scripts run.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A known script; whether the store should hear that it is used.
    fn find(&self, sha: &str) -> Option<(Arc<Script>, bool)> {
        let mut known = self.known();
        let entry = known.scripts.get_mut(sha)?;
        let is_due = entry.told.elapsed() >= USE_TOLD_EVERY;
        if is_due {
            entry.told = Instant::now();
        }
        Some((Arc::clone(&entry.script), is_due))
    }

    /// The script that `EVAL` brings; kept for `EVALSHA`, here and in the store.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn evaluated(&self, body: &[u8]) -> Result<Arc<Script>, Reply> {
        match self.find(&sha1_hex(body)) {
            Some((script, false)) => Ok(script),
            Some((script, true)) => {
                self.put(&script, false).await;
                Ok(script)
            }
            None => {
                let script = self.compiled(body)?;
                self.put(&script, false).await;
                self.known().keep(Arc::clone(&script));
                Ok(script)
            }
        }
    }

    fn compiled(&self, body: &[u8]) -> Result<Arc<Script>, Reply> {
        let script = Script::new(body)?;
        self.pool.check(&script)?;
        Ok(Arc::new(script))
    }

    /// A script that could not be kept runs all the same.
    async fn put(&self, script: &Script, is_loaded: bool) {
        if let Err(error) = self.store(script, is_loaded).await {
            tracing::debug!(%error, "a script is not kept in the store");
        }
    }

    async fn store(&self, script: &Script, is_loaded: bool) -> Result<(), StoreError> {
        let sha = digest(script.sha.as_bytes()).unwrap_or_default();
        self.store.put_script(&sha, &script.body, is_loaded).await
    }

    /// `SCRIPT LOAD`: the SHA-1 of the script.
    ///
    /// # Errors
    /// What is wrong with it, or that the store is away.
    pub async fn load(&self, body: &[u8]) -> Result<Arc<str>, Reply> {
        let script = self.compiled(body)?;
        let stored = self.store(&script, true).await;
        stored.map_err(|error| away(&error).reply())?;
        let sha = Arc::clone(&script.sha);
        self.known().keep(script);
        Ok(sha)
    }

    /// The script under that SHA-1, in any case of letters.
    ///
    /// # Errors
    /// `NOSCRIPT`, or that the store is away.
    pub async fn named(&self, sha: &[u8]) -> Result<Arc<Script>, Reply> {
        let none = || Reply::error("NOSCRIPT No matching script. Please use EVAL.");
        let digest = digest(sha).ok_or_else(none)?;
        let name = String::from_utf8_lossy(sha).to_ascii_lowercase();
        match self.find(&name) {
            Some((script, false)) => return Ok(script),
            Some((script, true)) => {
                self.put(&script, false).await;
                return Ok(script);
            }
            None => {}
        }
        let found = self.store.script(&digest).await;
        let found = found.map_err(|error| Refusal::ReadsAway(error.to_string()).reply())?;
        let script = self.compiled(&found.ok_or_else(none)?)?;
        self.known().keep(Arc::clone(&script));
        Ok(script)
    }

    /// Which of `shas` name a script.
    pub async fn exist(&self, shas: &[&[u8]]) -> Result<Vec<bool>, Reply> {
        let wanted: Vec<Option<Vec<u8>>> = shas.iter().map(|sha| digest(sha)).collect();
        let asked: Vec<Vec<u8>> = wanted.iter().flatten().cloned().collect();
        let found = self.store.scripts_of(&asked).await;
        let found = found.map_err(|error| Refusal::ReadsAway(error.to_string()).reply())?;
        let is_there = |sha: &Option<Vec<u8>>| sha.as_ref().is_some_and(|sha| found.contains(sha));
        Ok(wanted.iter().map(is_there).collect())
    }

    /// `SCRIPT FLUSH`: other proxies notice within a second.
    pub async fn flush(&self) -> Result<(), Reply> {
        let flushed = self.store.flush_scripts().await;
        flushed.map_err(|error| away(&error).reply())?;
        self.forget();
        Ok(())
    }

    fn forget(&self) {
        let mut known = self.known();
        known.scripts.clear();
        known.bytes = 0;
    }

    /// How many scripts this proxy keeps, and their bytes.
    pub fn kept(&self) -> (usize, usize) {
        let known = self.known();
        (known.scripts.len(), known.bytes)
    }

    /// Looks for ever whether another proxy has made void what is known here, and purges
    /// the store of scripts that nobody uses.
    pub async fn follow(self: Arc<Self>) {
        for round in 0_u64.. {
            match self.store.script_epochs().await {
                Ok(epochs) => {
                    let before = std::mem::replace(&mut self.known().epochs, epochs);
                    if before.scripts != epochs.scripts && round > 0 {
                        self.forget();
                    }
                }
                Err(error) => tracing::debug!(%error, "scripts are not compared with the store"),
            }
            if round.is_multiple_of(PURGE_EVERY)
                && let Err(error) = self.store.purge_scripts(EVALUATED_MAX).await
            {
                tracing::debug!(%error, "unused scripts stay until the next time");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn away(error: &StoreError) -> Refusal {
    Refusal::StoreAway(error.to_string())
}

/// The 20 bytes that 40 hexadecimal digits name.
fn digest(hex: &[u8]) -> Option<Vec<u8>> {
    if hex.len() != 40 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    hex.chunks(2)
        .map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
        .collect()
}
