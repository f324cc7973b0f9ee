//! Calls that wait until there is something for them.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::{Flow, Origin, oversized};
use crate::coherence::{Step, Ticket};
use crate::command::{Call, resolve};
use crate::engine;
use crate::model::{Db, Key, Reply, Request};
use crate::routing::Verdict;

/// A call that waits; dropping this ends it.
pub struct Wait {
    ticket: Ticket,
    limit: Option<Duration>,
}

impl Wait {
    /// How long it waits; `None`: for ever.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Ready when it got something.
    pub fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Reply> {
        let answer = self.ticket.poll_answer(context);
        answer.map(|answer| answer.unwrap_or_else(|refusal| refusal.reply()))
    }

    /// Ends it. What a try that was under way still got is the reply, else null.
    pub async fn give_up(self) -> Reply {
        let answer = self.ticket.withdraw().await;
        answer.unwrap_or_else(|refusal| refusal.reply())
    }
}

/// Whether `call` waits if there is nothing; one whose time to wait is refused does not.
pub fn may_wait(call: &Call) -> bool {
    matches!(engine::waits(call), Some(Ok(_)))
}

impl Flow {
    /// Lets a call that blocks wait until it gets something, for as long as it says.
    /// An error reply where it does not come to that.
    pub async fn wait(&self, origin: &Origin, call: &Call) -> Result<Wait, Reply> {
        if let Some(refusal) = oversized(call) {
            return Err(refusal);
        }
        if let Some(routes) = self.parts.routing.get()
            && let Verdict::Refused(refusal) = routes.judge(call)
        {
            return Err(refusal);
        }
        let Some(Ok(timeout)) = engine::waits(call) else {
            return Err(Reply::error(
                "ERR Freshet internal error: the command does not wait",
            ));
        };
        if let Some(refusal) = engine::refused_always(call, origin.db) {
            return Err(refusal);
        }
        let call = self.with_ends(call, origin.db).await?;
        Ok(Wait {
            ticket: self.parts.waiting.enter(call, origin.db, origin.client),
            limit: match timeout {
                engine::Timeout::Never => None,
                engine::Timeout::After(limit) => Some(limit),
            },
        })
    }

    /// The call in memory of its own, since it is kept for long; with the ids that `$`
    /// stands for now.
    async fn with_ends(&self, call: &Call, db: Db) -> Result<Call, Reply> {
        let (places, keys): (Vec<usize>, Vec<Key>) =
            engine::awaited_ends(call, db).into_iter().unzip();
        if places.is_empty() {
            let request = call.request.detached();
            return Ok(Call::new(call.command, request));
        }
        let looks = keys.iter().filter_map(look_at_end);
        let looks: Vec<Step> = looks.collect();
        let told = self.parts.reads.block(&looks).await;
        let told = told.map_err(|refusal| refusal.reply())?;
        let mut ends = Vec::with_capacity(places.len());
        for (place, reply) in places.into_iter().zip(told) {
            // Of a key that is not there, anything is new. One of another type is found by the first
            // try, in its turn: the arguments of a key before it may be wrong.
            ends.push((place, last_id(reply).unwrap_or(Bytes::from_static(b"0-0"))));
        }
        Ok(engine::with_arguments(call, &ends))
    }

    /// How many calls wait for something to be written.
    pub fn waiting(&self) -> usize {
        self.parts.waiting.blocked()
    }
}

fn look_at_end(key: &Key) -> Option<Step> {
    let request = Request::from_args(&[&b"XINFO"[..], b"STREAM", &key.name]);
    let call = resolve(request).ok()?;
    Some(Step::new(key.db, call))
}

/// The last id of what `XINFO STREAM` replied.
fn last_id(reply: Reply) -> Option<Bytes> {
    let Reply::Map(pairs) = reply else {
        return None;
    };
    pairs
        .into_iter()
        .find_map(|(name, value)| match (name, value) {
            (Reply::Bulk(name), Reply::Bulk(id)) if name == "last-generated-id" => Some(id),
            _ => None,
        })
}
