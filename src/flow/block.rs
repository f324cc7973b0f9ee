//! MULTI blocks, and the keys that WATCH guards.

use super::{Flow, Origin, UNIT_BYTES_MAX, oversized};
use crate::coherence::{Acknowledge, Answer, Seen, Step, Unit};
use crate::command::{Class, Token};
use crate::model::{Key, Reply};
use crate::routing::{Routes, Verdict};

impl Flow {
    /// The keys as they are now, for [`transact`](Self::transact); an error reply
    /// if that cannot be told. No read after this shows anything older.
    pub async fn watch(&self, mut keys: Vec<Key>) -> Result<Vec<(Key, Seen)>, Reply> {
        if let Some(routes) = self.parts.routing.get()
            && let Some(apart) = keys.iter().find_map(|key| routes.apart(&key.name))
        {
            let text = format!("ERR WATCH is not served for {} keys", apart.name());
            return Err(Reply::error(text));
        }
        keys.sort_unstable();
        keys.dedup();
        let seen = self.parts.reads.watch(keys).await;
        seen.map_err(|refusal| refusal.reply())
    }

    /// Runs the commands of a block (of the classes `Read`, `Expiry`, `Write` and `Script`) as
    /// one unit, if all `watched` keys are as they were seen; one reply each.
    /// `None`: one is not, and nothing was done.
    ///
    /// `origin` is who sent it. With a `token` the block is made once: if it was
    /// before, this is what it was answered then, whatever is watched.
    ///
    /// A block that only reads is answered from one state, like any other.
    ///
    /// # Errors
    /// An error reply for the block as a whole. But for `UNKNOWN` nothing was done.
    pub async fn transact(
        &self,
        steps: Vec<Step>,
        watched: Vec<(Key, Seen)>,
        origin: &Origin,
        token: Option<Token>,
    ) -> Result<Option<Vec<Reply>>, Reply> {
        let routes = self.parts.routing.get();
        let acknowledge = match routes.as_deref().map(|routes| judged(routes, &steps)) {
            Some(Verdict::Refused(refusal)) => return Err(refusal),
            Some(Verdict::WriteBehind) => {
                if let Some(refusal) = unfit("write-behind", &watched, token.as_ref()) {
                    return Err(refusal);
                }
                let replies = Box::pin(self.write_behind_block(&steps, origin)).await;
                return replies.map(Some);
            }
            Some(Verdict::CacheOnly) => {
                if let Some(refusal) = unfit("cache-only", &watched, token.as_ref()) {
                    return Err(refusal);
                }
                let routes = routes.unwrap_or_default();
                let replies = self.cache_only_block(&routes, &steps, origin).await;
                return replies.map(Some);
            }
            Some(Verdict::Eventual) => Acknowledge::Committed,
            // (A block with writes of mapped keys is refused.)
            Some(Verdict::Atomic | Verdict::Mapped) | None => Acknowledge::Applied,
        };
        if token.is_none() && watched.is_empty() && steps.iter().all(only_reads) {
            let replies = self.parts.reads.block(&steps).await;
            return replies.map(Some).map_err(|refusal| refusal.reply());
        }
        let (kept, refusals) = self.prepared(steps, origin, token.is_some()).await?;
        let mut unit = Unit::of(kept, token).by(origin.client);
        unit.watched = watched;
        unit.acknowledge = acknowledge;
        if unit.bytes() > UNIT_BYTES_MAX {
            return Err(Reply::error(
                "ERR the transaction is longer than 900 MB, which PostgreSQL cannot take at once; \
                 nothing was done",
            ));
        }
        let scripts = unit.steps.iter().filter_map(|step| step.script.clone());
        let scripts: Vec<_> = scripts.collect();
        let answer = Box::pin(self.parts.asides.submit(vec![unit])).await.pop();
        origin.note_refused(&scripts);
        let answer = answer.transpose().map_err(|refusal| refusal.reply())?;
        let mut replies = match answer {
            Some(Answer::Done(replies)) => replies.into_iter(),
            Some(Answer::Refused(reply)) => return Err(reply),
            Some(Answer::Unwatched | Answer::Deferred) | None => return Ok(None),
        };
        let replies = refusals
            .into_iter()
            .map(|refusal| refusal.or_else(|| replies.next()).unwrap_or(Reply::Null));
        Ok(Some(replies.collect()))
    }

    /// The steps that can be run, with their scripts, and of all steps why not; an error if one
    /// cannot, and the block is made `once`: what is kept then would be something else than was
    /// asked for.
    async fn prepared(
        &self,
        steps: Vec<Step>,
        origin: &Origin,
        once: bool,
    ) -> Result<(Vec<Step>, Vec<Option<Reply>>), Reply> {
        let mut refusals: Vec<Option<Reply>> = Vec::with_capacity(steps.len());
        let mut kept = Vec::with_capacity(steps.len());
        for step in steps {
            let prepared = match step.call.command.class {
                Class::Script => {
                    let user = origin.user.as_ref();
                    Box::pin(self.prepare(step.db, &step.call, user)).await
                }
                _ => oversized(&step.call).map_or(Ok(step), Err),
            };
            match prepared {
                Ok(step) => {
                    kept.push(step);
                    refusals.push(None);
                }
                Err(refusal) if once => return Err(refusal),
                Err(refusal) => refusals.push(Some(refusal)),
            }
        }
        Ok((kept, refusals))
    }
}

/// Why a block over keys of this strategy cannot be run.
fn unfit(apart: &str, watched: &[(Key, Seen)], token: Option<&Token>) -> Option<Reply> {
    if token.is_some() {
        let text = format!("ERR FRESHET.ONCE is not served for {apart} keys; nothing was done");
        return Some(Reply::error(text));
    }
    (!watched.is_empty()).then(|| {
        Reply::error(format!(
            "ERR WATCH does not guard a block over {apart} keys; nothing was done"
        ))
    })
}

fn judged(routes: &Routes, steps: &[Step]) -> Verdict {
    routes.judge_block(steps.iter().map(|step| &step.call))
}

fn only_reads(step: &Step) -> bool {
    matches!(step.call.command.class, Class::Read | Class::Expiry)
}
