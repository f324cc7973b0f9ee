//! Reads: the cache's own reply where it is certain, else what is found by looking.

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;

use super::certain::is_certain;
use super::companion::{Companion, companion, expiry_block, expiry_reply, told_expiry};
use super::{Flow, Origin};
use crate::cache::{CacheError, Replies};
use crate::coherence::Phase;
use crate::command::{Call, Class};
use crate::model::{Generation, Reply, Request};
use crate::resp;

/// Misses of one connection that are worked on at once.
const MISSES_MAX: usize = 64;

impl Flow {
    pub(super) async fn read(&self, origin: &Origin, calls: &[Call], out: &mut BytesMut) {
        let Some(first) = self.ask_cache(origin, calls).await else {
            for chunk in calls.chunks(MISSES_MAX) {
                for reply in join_all(chunk.iter().map(|call| self.miss(origin, call))).await {
                    resp::encode(&reply, origin.protocol, out);
                }
            }
            return;
        };
        let mut slices = first.iter();
        let mut doubtful = Vec::new();
        let mut answers: Vec<&[u8]> = Vec::with_capacity(calls.len());
        for (index, call) in calls.iter().enumerate() {
            let last = slices
                .by_ref()
                .nth(replies_to(call) - 1)
                .unwrap_or_default();
            if !is_certain(call, last) {
                doubtful.push(index);
            }
            answers.push(last);
        }
        self.parts
            .reads
            .count_hits((calls.len() - doubtful.len()) as u64);
        if doubtful.is_empty() && first.len() == calls.len() {
            out.extend_from_slice(first.bytes());
            return;
        }
        let mut settled = Vec::with_capacity(doubtful.len());
        for chunk in doubtful.chunks(MISSES_MAX) {
            let looked = chunk
                .iter()
                .map(|&index| self.look_into(origin, &calls[index], answers[index]));
            settled.extend(join_all(looked).await);
        }
        let mut settled = doubtful.into_iter().zip(settled).peekable();
        for (index, bytes) in answers.iter().enumerate() {
            match settled.next_if(|(at, _)| *at == index) {
                Some((_, reply)) => resp::encode(&reply, origin.protocol, out),
                None => out.extend_from_slice(bytes),
            }
        }
    }

    /// Sends reads to the cache together. `None`: it may not be used, or failed.
    async fn ask_cache(&self, origin: &Origin, calls: &[Call]) -> Option<Replies> {
        let Phase::Active(generation) = self.parts.fence.phase() else {
            return None;
        };
        let expected = calls.iter().map(replies_to).sum();
        let others: Vec<(usize, Bytes)> = calls
            .iter()
            .enumerate()
            .filter_map(|(index, call)| Some((index, sent_instead(call)?)))
            .collect();
        let mut others = others.iter().peekable();
        let requests = calls.iter().enumerate().map(|(index, call)| {
            match others.next_if(|(at, _)| *at == index) {
                Some((_, other)) => &other[..],
                None => &call.request.raw()[..],
            }
        });
        match self
            .parts
            .cache
            .read(origin.db, origin.protocol, requests, expected)
            .await
        {
            Ok(replies) => self.parts.fence.allows_hit(generation).then_some(replies),
            Err(error) => {
                self.parts.fence.cache_failed(generation, &error, 0).await;
                None
            }
        }
    }

    /// A reply that is not certain: the true expiry, or a key that may be missing.
    async fn look_into(&self, origin: &Origin, call: &Call, reply: &[u8]) -> Reply {
        if call.command.class == Class::Expiry
            && let Some(found) = told_expiry(reply)
        {
            return expiry_reply(call, origin.db, found, self.parts.store.clock().now());
        }
        self.miss(origin, call).await
    }

    pub(super) async fn miss(&self, origin: &Origin, call: &Call) -> Reply {
        self.parts
            .reads
            .miss(call, origin.db, |generation| {
                self.read_checked(origin, call, generation)
            })
            .await
    }

    /// The command, and in the same MULTI whether all its keys are there or known
    /// to be absent; `None` if one is not.
    async fn read_checked(
        &self,
        origin: &Origin,
        call: &Call,
        generation: Generation,
    ) -> Result<Option<Reply>, CacheError> {
        if call.command.class == Class::Expiry {
            return Ok(self
                .ask_cache(origin, std::slice::from_ref(call))
                .await
                .and_then(|replies| {
                    let found = told_expiry(&replies.get(replies.len() - 1))?;
                    Some(expiry_reply(
                        call,
                        origin.db,
                        found,
                        self.parts.store.clock().now(),
                    ))
                }));
        }
        let keys: Vec<Bytes> = call.key_names().collect();
        let mut block = BytesMut::new();
        block.extend_from_slice(Request::from_args(&["MULTI"]).raw());
        match sent_instead(call) {
            Some(other) => block.extend_from_slice(&other),
            None => block.extend_from_slice(call.request.raw()),
        }
        for key in &keys {
            block.extend_from_slice(Request::from_args(&[&b"EXISTS"[..], key]).raw());
            block.extend_from_slice(Request::from_args(&[&b"GET"[..], &companion(key)]).raw());
        }
        block.extend_from_slice(Request::from_args(&["EXEC"]).raw());
        let count = 2 * keys.len() + 3;
        let block = [&block[..]];
        let replies = self
            .parts
            .cache
            .read(origin.db, origin.protocol, block.into_iter(), count)
            .await?;
        if !self.parts.fence.allows_hit(generation) {
            return Ok(None);
        }
        let Ok(Reply::Array(mut items)) = resp::decode_reply(&replies.get(count - 1)) else {
            return Err(CacheError::Refused("EXEC was refused".into()));
        };
        let known = items[1..].chunks(2).all(|pair| match pair {
            [Reply::Integer(1), _] => true,
            [_, Reply::Bulk(companion)] => Companion::parse(companion).is_some_and(|c| c.absent),
            _ => false,
        });
        Ok(known.then(|| items.swap_remove(0)))
    }
}

/// What the cache is sent instead of the client's own request; `None`: just that.
fn sent_instead(call: &Call) -> Option<Bytes> {
    if call.command.class == Class::Expiry {
        return Some(expiry_block(call));
    }
    // Of one key, Redis writes the count into the string, and the store would not know of it:
    // the cache would then show other bytes than were committed. Of a key named twice it only counts.
    (call.command.name == "PFCOUNT" && call.request.len() == 2).then(|| {
        let key = call.request.arg(1);
        Request::from_args(&[b"PFCOUNT", key, key]).raw().clone()
    })
}

/// How many replies the cache gives to what is sent for `call`.
fn replies_to(call: &Call) -> usize {
    match call.command.class {
        Class::Expiry => 4,
        _ => 1,
    }
}
