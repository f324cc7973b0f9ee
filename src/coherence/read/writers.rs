//! Writers that a read finds at its keys: those of this proxy are waited for, those that are over
//! or dead are taken out.

use super::{Reads, WAIT_MAX};
use crate::cache::{Applied, Look, Op};
use crate::model::{Generation, Key, Version};
use crate::store::LoadRequest;

impl Reads {
    /// Waits for this proxy's own batches among the writers, and has those of
    /// dead proxies buried; whether to look again.
    pub(super) async fn writers_done(
        &self,
        looks: &[Look],
        keys: &[Key],
        generation: Generation,
        over: u64,
    ) -> bool {
        let own = format!("{}.", self.fence.proxy());
        for (look, key) in looks.iter().zip(keys) {
            let Look::Writers(ids) = look else { continue };
            for id in ids {
                if let Some(batch) = id.strip_prefix(&own).and_then(|n| n.parse().ok()) {
                    let done = if batch <= over {
                        self.sweep_ghost(id, key, generation).await
                    } else {
                        self.lane.applied(batch, WAIT_MAX).await
                    };
                    if done {
                        return true;
                    }
                } else if let Some((proxy, _)) = id.split_once('.')
                    && self.bury(proxy, key, generation).await
                {
                    return true;
                }
            }
        }
        false
    }

    /// Takes out an id of a batch that is long over: its begin got no answer, and
    /// arrived after it had been given up.
    async fn sweep_ghost(&self, id: &str, key: &Key, generation: Generation) -> bool {
        let seen = [Applied {
            key,
            op: Op::Observe,
            version: Version(0),
        }];
        self.cache.apply(generation, id, &seen).await.is_ok()
    }

    /// Takes out what a dead proxy left at `key`; `false` while it lives.
    async fn bury(&self, proxy: &str, key: &Key, generation: Generation) -> bool {
        let Ok(number) = proxy.parse() else {
            return false;
        };
        if !self.store.prove_dead(number).await.unwrap_or(false) {
            return false;
        }
        let Ok(loaded) = self
            .loader
            .load(vec![LoadRequest::header(key.clone())])
            .await
        else {
            return false;
        };
        let Some(found) = loaded.keys.first() else {
            return false;
        };
        tracing::info!(proxy, ?key, "a dead proxy's write is buried");
        self.cache
            .bury(generation, proxy, key, found.version)
            .await
            .is_ok()
    }
}
