//! MULTI blocks, and the keys that WATCH guards.

use super::{Flow, Origin, UNIT_BYTES_MAX, oversized};
use crate::coherence::{Acknowledge, Seen, Step, Unit};
use crate::command::Class;
use crate::model::{Key, Reply};
use crate::routing::{Routes, Verdict};

impl Flow {
    /// The keys as they are now, for [`transact`](Self::transact); an error reply
    /// if that cannot be told. No read after this shows anything older.
    pub async fn watch(&self, mut keys: Vec<Key>) -> Result<Vec<(Key, Seen)>, Reply> {
        if let Some(routes) = self.parts.routing.get()
            && keys.iter().any(|key| routes.is_cache_only(&key.name))
        {
            return Err(Reply::error("ERR WATCH is not served for cache-only keys"));
        }
        keys.sort_unstable();
        keys.dedup();
        let seen = self.parts.reads.watch(keys).await;
        seen.map_err(|refusal| refusal.reply())
    }

    /// Runs the commands of a block (of the classes `Read`, `Expiry` and `Write`) as
    /// one unit, if all `watched` keys are as they were seen; one reply each.
    /// `None`: one is not, and nothing was done.
    ///
    /// `origin` is who sent it; the steps have databases of their own.
    ///
    /// A block that only reads is answered from one state, like any other.
    ///
    /// # Errors
    /// An error reply for the block as a whole. But for `UNKNOWN` nothing was done.
    pub async fn transact(
        &self,
        steps: Vec<Step>,
        watched: Vec<(Key, Seen)>,
        origin: Origin,
    ) -> Result<Option<Vec<Reply>>, Reply> {
        let routes = self.parts.routing.get();
        let acknowledge = match routes.as_deref().map(|routes| judged(routes, &steps)) {
            Some(Verdict::Refused(refusal)) => return Err(refusal),
            Some(Verdict::CacheOnly) if !watched.is_empty() => {
                return Err(Reply::error(
                    "ERR WATCH does not guard a block over cache-only keys; nothing was done",
                ));
            }
            Some(Verdict::CacheOnly) => {
                let routes = routes.unwrap_or_default();
                let replies = self.cache_only_block(&routes, &steps, origin).await;
                return replies.map(Some);
            }
            Some(Verdict::Eventual) => Acknowledge::Committed,
            Some(Verdict::Atomic) | None => Acknowledge::Applied,
        };
        if watched.is_empty() && steps.iter().all(only_reads) {
            let replies = self.parts.reads.block(&steps).await;
            return replies.map(Some).map_err(|refusal| refusal.reply());
        }
        let refusals: Vec<Option<Reply>> = steps.iter().map(|step| oversized(&step.call)).collect();
        let kept = steps.into_iter().zip(&refusals);
        let kept = kept.filter(|(_, refusal)| refusal.is_none());
        let unit = Unit {
            steps: kept.map(|(step, _)| step).collect(),
            watched,
            client: origin.client,
            acknowledge,
        };
        if unit.bytes() > UNIT_BYTES_MAX {
            return Err(Reply::error(
                "ERR the transaction is longer than 900 MB, which PostgreSQL cannot take at once; \
                 nothing was done",
            ));
        }
        let answers = self.parts.lane.submit(vec![unit]).await;
        let answer = answers.map_err(|refusal| refusal.reply())?.pop().flatten();
        Ok(answer.map(|replies| {
            let mut replies = replies.into_iter();
            refusals
                .into_iter()
                .map(|refusal| refusal.or_else(|| replies.next()).unwrap_or(Reply::Null))
                .collect()
        }))
    }
}

fn judged(routes: &Routes, steps: &[Step]) -> Verdict {
    routes.judge_block(steps.iter().map(|step| &step.call))
}

fn only_reads(step: &Step) -> bool {
    matches!(step.call.command.class, Class::Read | Class::Expiry)
}
