//! Keys that only the cache has: the client's own commands, run there under other names.
//!
//! A name of its own kind keeps such a key apart from what the cache holds of the store's
//! keys, whatever routes another proxy has, or had. The end of all content of the cache, which
//! the fence brings about, is also theirs.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::renamed::Renamed;
use super::{Flow, Origin};
use crate::cache::{Replies, SOLE_PREFIX};
use crate::coherence::{Audience, Change, Phase, Refusal, Step};
use crate::command::{Call, Class};
use crate::model::{Db, Generation, Key, Protocol, Reply, Request};
use crate::resp;
use crate::routing::{Routes, named};

/// How the keys are called in the cache.
const NAMES: Renamed = Renamed {
    prefix: SOLE_PREFIX,
    more: 0,
};

/// What is sent for a call: the call itself, and what gives its keys a life.
struct Sent {
    requests: Vec<Bytes>,
}

impl Sent {
    fn new(routes: &Routes, call: &Call) -> Self {
        let keys = named(call);
        let renamed = |(index, arg): (usize, &[u8])| {
            if keys.iter().any(|(at, _)| *at == index) {
                [SOLE_PREFIX, arg].concat()
            } else {
                arg.to_vec()
            }
        };
        let words: Vec<Vec<u8>> = call.request.args().enumerate().map(renamed).collect();
        let mut requests = vec![Request::from_args(&words).raw().clone()];
        for (index, _) in keys.iter().filter(|(_, is_written)| *is_written) {
            let route = routes.find(call.request.arg(*index));
            let Some(ttl) = route.and_then(|route| Some((route.ttl?, route.ttl_jitter))) else {
                continue;
            };
            let ttl = shortened(ttl.0, ttl.1).as_millis().to_string();
            let ends = [&b"PEXPIRE"[..], &words[*index], ttl.as_bytes(), b"NX"];
            requests.push(Request::from_args(&ends).raw().clone());
        }
        Self { requests }
    }
}

/// `life`, by up to `jitter` per cent shorter.
fn shortened(life: Duration, jitter: u16) -> Duration {
    life * u32::from(100 - rand::random_range(0..=jitter.min(99))) / 100
}

impl Flow {
    /// Runs calls over cache-only keys, in order, and appends their replies.
    pub(super) async fn cache_only(
        &self,
        routes: &Routes,
        origin: &Origin,
        calls: &[Call],
        out: &mut BytesMut,
    ) {
        let sent: Vec<Sent> = calls.iter().map(|call| Sent::new(routes, call)).collect();
        let requests = sent.iter().flat_map(|sent| &sent.requests).map(|r| &r[..]);
        let count = sent.iter().map(|sent| sent.requests.len()).sum();
        match self
            .ask_sole(origin.db, origin.protocol, requests, count)
            .await
        {
            Err(refused) => {
                for call in calls {
                    resp::encode(&refused.reply(call.command.class), origin.protocol, out);
                }
            }
            Ok(replies) => {
                let mut place = 0;
                for (call, sent) in calls.iter().zip(&sent) {
                    NAMES.append(call, &replies.get(place), origin.protocol, out);
                    place += sent.requests.len();
                }
                self.tell_of(calls.iter().map(|call| (call, origin.db)), origin.client);
            }
        }
    }

    /// Runs a MULTI block over cache-only keys: as one in the cache.
    pub(super) async fn cache_only_block(
        &self,
        routes: &Routes,
        steps: &[Step],
        origin: &Origin,
    ) -> Result<Vec<Reply>, Reply> {
        let Some(db) = steps.first().map(|step| step.db) else {
            return Ok(Vec::new());
        };
        if steps.iter().any(|step| step.db != db) {
            return Err(Reply::error(
                "ERR cache-only keys of several databases cannot be in one MULTI block; nothing \
                 was done",
            ));
        }
        let sent: Vec<Sent> = steps.iter().map(|s| Sent::new(routes, &s.call)).collect();
        let mut block = BytesMut::from(&Request::from_args(&["MULTI"]).raw()[..]);
        for request in sent.iter().flat_map(|sent| &sent.requests) {
            block.extend_from_slice(request);
        }
        block.extend_from_slice(Request::from_args(&["EXEC"]).raw());
        let count = sent.iter().map(|sent| sent.requests.len()).sum::<usize>() + 2;
        let asked = self
            .ask_sole(db, origin.protocol, [&block[..]].into_iter(), count)
            .await;
        let replies = asked.map_err(|refused| refused.reply(Class::Write))?;
        let items = match resp::decode_reply(&replies.get(count - 1)) {
            Ok(Reply::Array(items)) => items,
            Ok(refusal @ Reply::Error(_)) => return Err(refusal),
            _ => return Err(Refused::Unanswered("EXEC".into()).reply(Class::Write)),
        };
        self.tell_of(
            steps.iter().map(|step| (&step.call, step.db)),
            origin.client,
        );
        let mut items = items.into_iter();
        let own = |(sent, step): (&Sent, &Step)| {
            let reply = items.next().unwrap_or(Reply::Null);
            items.by_ref().take(sent.requests.len() - 1).for_each(drop);
            NAMES.unnamed(&step.call, reply)
        };
        Ok(sent.iter().zip(steps).map(own).collect())
    }

    /// Sends requests to the cache while it is in use.
    async fn ask_sole<'a>(
        &self,
        db: Db,
        protocol: Protocol,
        requests: impl Iterator<Item = &'a [u8]>,
        replies: usize,
    ) -> Result<Replies, Refused> {
        let generation: Generation = match self.parts.fence.settled().await {
            Ok(Phase::Active(generation)) => generation,
            Ok(_) => return Err(Refused::OutOfUse),
            Err(refusal) => return Err(Refused::Unsettled(refusal)),
        };
        match self.parts.cache.read(db, protocol, requests, replies).await {
            Ok(replies) if self.parts.fence.allows_hit(generation) => Ok(replies),
            Ok(_) => Err(Refused::Unanswered("the cache has been given up".into())),
            Err(error) => {
                self.parts.fence.cache_failed(generation, &error, 0).await;
                Err(Refused::Unanswered(error.to_string()))
            }
        }
    }

    /// Tells clients that keep copies. (Of events of such keys nobody is told.)
    pub(super) fn tell_of<'a>(&self, calls: impl Iterator<Item = (&'a Call, Db)>, client: u64) {
        if !self.parts.broker.wants_changes() {
            return;
        }
        let writes = calls.filter(|(call, _)| call.command.class == Class::Write);
        let keys: Vec<Key> = writes.flat_map(|(call, db)| call.keys(db)).collect();
        let author = (client != 0).then_some(client);
        let change = |key| Change { key, author };
        let changes: Vec<Change<'_>> = keys.iter().map(change).collect();
        self.parts.broker.hear_changes(&changes);
    }
}

/// Why calls over cache-only keys were not answered by the cache.
enum Refused {
    OutOfUse,
    Unsettled(Refusal),
    Unanswered(String),
}

impl Refused {
    fn reply(&self, class: Class) -> Reply {
        match self {
            Self::OutOfUse => Reply::error(
                "TRYAGAIN the key is kept by the cache alone, which is out of use: nothing was done",
            ),
            Self::Unsettled(refusal) => refusal.reply(),
            Self::Unanswered(why) => {
                let why = why.replace(['\r', '\n'], " ");
                Reply::error(match class {
                    Class::Write => {
                        format!("UNKNOWN the cache may or may not have done it ({why})")
                    }
                    _ => format!("TRYAGAIN the cache gave no answer ({why})"),
                })
            }
        }
    }
}
