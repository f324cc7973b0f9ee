//! MULTI blocks, and the keys that WATCH guards.

use smallvec::SmallVec;

use super::{Flow, UNIT_BYTES_MAX, oversized};
use crate::coherence::{Answer, Once, Seen, Step, Unit};
use crate::command::{Class, Token};
use crate::model::{Key, Reply};

impl Flow {
    /// The keys as they are now, for [`transact`](Self::transact); an error reply
    /// if that cannot be told. No read after this shows anything older.
    pub async fn watch(&self, mut keys: Vec<Key>) -> Result<Vec<(Key, Seen)>, Reply> {
        keys.sort_unstable();
        keys.dedup();
        let seen = self.parts.reads.watch(keys).await;
        seen.map_err(|refusal| refusal.reply())
    }

    /// Runs the commands of a block (of the classes `Read`, `Expiry` and `Write`) as
    /// one unit, if all `watched` keys are as they were seen; one reply each.
    /// `None`: one is not, and nothing was done.
    ///
    /// `client` is the number of who sent it. With a `token` the block is made once: if it was
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
        client: u64,
        token: Option<Token>,
    ) -> Result<Option<Vec<Reply>>, Reply> {
        if token.is_none() && watched.is_empty() && steps.iter().all(only_reads) {
            let replies = self.parts.reads.block(&steps).await;
            return replies.map(Some).map_err(|refusal| refusal.reply());
        }
        let refusals: Vec<Option<Reply>> = steps.iter().map(|step| oversized(&step.call)).collect();
        if token.is_some()
            && let Some(refusal) = refusals.iter().flatten().next()
        {
            return Err(refusal.clone());
        }
        let kept = steps.into_iter().zip(&refusals);
        let kept = kept.filter(|(_, refusal)| refusal.is_none());
        let steps: SmallVec<[Step; 1]> = kept.map(|(step, _)| step).collect();
        let unit = Unit {
            once: token.map(|token| Box::new(Once::new(token, &steps))),
            steps,
            watched,
            client,
        };
        if unit.bytes() > UNIT_BYTES_MAX {
            return Err(Reply::error(
                "ERR the transaction is longer than 900 MB, which PostgreSQL cannot take at once; \
                 nothing was done",
            ));
        }
        let answers = self.parts.lane.submit(vec![unit]).await;
        let mut replies = match answers.map_err(|refusal| refusal.reply())?.pop() {
            Some(Answer::Done(replies)) => replies.into_iter(),
            Some(Answer::Refused(reply)) => return Err(reply),
            Some(Answer::Unwatched) | None => return Ok(None),
        };
        let replies = refusals
            .into_iter()
            .map(|refusal| refusal.or_else(|| replies.next()).unwrap_or(Reply::Null));
        Ok(Some(replies.collect()))
    }
}

fn only_reads(step: &Step) -> bool {
    matches!(step.call.command.class, Class::Read | Class::Expiry)
}
