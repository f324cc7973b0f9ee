//! Keys that the journal's server does not know yet, brought from the store.

use bytes::Bytes;

use super::{NotAsked, Shared};
use crate::cache::{CacheError, Resting, RestingKey};
use crate::coherence::Refusal;
use crate::engine::{self, Content, Loaded, Need};
use crate::model::{Key, Value};
use crate::store::{LoadRequest, StoreError};

/// Keys that are read from the store together.
const KEYS_MAX: usize = 64;

impl Shared {
    /// Brings `keys` in, where nothing is known of them by then. `dropped` is what the guard said
    /// that missed them. (Whether they are there then, the guard tells again.)
    pub(super) async fn bring(
        &self,
        mark: &str,
        dropped: i64,
        keys: &[Key],
    ) -> Result<(), NotAsked> {
        let stopping = |_| NotAsked::Store(Refusal::Stopping);
        let _permit = self.loads.acquire().await.map_err(stopping)?;
        for chunk in keys.chunks(KEYS_MAX) {
            let found = self.load(chunk).await?;
            match self.journal.admit(mark, dropped, &found).await {
                Ok(true) => self.meters.loads.increment(chunk.len() as u64),
                Ok(false) => return Ok(()),
                Err(CacheError::Full) => {
                    let text = "OOM the journal's server is full: nothing was done";
                    return Err(NotAsked::Error(Bytes::from_static(text.as_bytes())));
                }
                Err(error) => {
                    self.lost(mark, &error.to_string());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn load(&self, keys: &[Key]) -> Result<Vec<RestingKey>, NotAsked> {
        let request = |key: &Key| LoadRequest::new(key.clone(), Need::value());
        let requests: Vec<LoadRequest> = keys.iter().map(request).collect();
        match self.store.snapshot(&requests).await {
            Ok(found) => keys.iter().zip(found.keys).map(resting).collect(),
            Err(StoreError::TooLarge(_)) if keys.len() > 1 => {
                let mut found = Vec::with_capacity(keys.len());
                for key in keys {
                    found.extend(Box::pin(self.load(std::slice::from_ref(key))).await?);
                }
                Ok(found)
            }
            Err(error @ StoreError::TooLarge(_)) => {
                Err(NotAsked::Store(Refusal::TooLarge(error.to_string())))
            }
            Err(error) => Err(NotAsked::Store(Refusal::StoreAway(error.to_string()))),
        }
    }
}

fn resting((key, loaded): (&Key, Loaded)) -> Result<RestingKey, NotAsked> {
    let (held, ends) = match loaded.content {
        Content::Absent => (Resting::Nothing, None),
        Content::Value(Value::String(value)) => (Resting::String(value), loaded.expires_at),
        Content::Value(value) => match engine::dumped(&value) {
            Ok(payload) => (Resting::Dump(payload.into()), loaded.expires_at),
            Err(_) => return Err(unread()),
        },
        Content::Header(_) => return Err(unread()),
    };
    Ok(RestingKey {
        key: key.clone(),
        held,
        ends: ends.map(|ends| ends.0),
    })
}

fn unread() -> NotAsked {
    NotAsked::Store(Refusal::Refused(
        "PostgreSQL told the key in part only".into(),
    ))
}
