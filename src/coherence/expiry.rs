//! Tells of keys whose end has passed, while anybody wants to hear of it.
//!
//! Nothing happens in the store at a key's end: whoever reads judges by the time. Here
//! such keys are looked for, in the order of their ends, and each is deleted through the commit
//! lane, by a command that finds nothing to do if somebody else was first: so it is told
//! of once, however many proxies look, in order with the writes of the key, and the
//! cache hears of it as of any other deletion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Audience, Lane, Refusal, Unit};
use crate::command::{self, Call};
use crate::model::{Key, Request, UnixMs};
use crate::store::{Store, StoreError};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Keys that one look finds at most.
const LOOK_KEYS: usize = 1000;
/// Keys of one submission to the commit lane: clients' units stand between two.
const UNITS: usize = 250;
/// So far before what was seen a look begins: a key may be committed when its end
/// has passed already.
const LOOK_BACK: Duration = Duration::from_secs(1);
/// Each so many looks, one begins where the listening began: for a commit that took longer.
const WIDE_EVERY: u64 = 100;

/// Behind a look that came to nothing.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tells for ever; ends only when it is aborted. Errors wait for the next look.
pub async fn expire_forever(lane: Arc<Lane>, store: Arc<Store>, audience: Arc<dyn Audience>) {
    let mut looks: Option<Looks> = None;
    let mut has_warned = false;
    let mut last_quiet = Instant::now();
    loop {
        if audience.wants_ends() {
            let looks = looks.get_or_insert_with(|| {
                let start = last_quiet.elapsed() + LOOK_BACK;
                Looks::new(earlier(store.clock().now(), start))
            });
            match looks.look(&lane, &store).await {
                Ok(()) => has_warned = false,
                Err(error) => {
                    if !std::mem::replace(&mut has_warned, true) {
                        tracing::warn!(%error, "keys whose end has passed are told of later");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        } else {
            looks = None;
            last_quiet = Instant::now();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the commit lane refused: {0:?}")]
    Lane(Refusal),
}

/// Where the looks stand.
#[derive(Debug)]
struct Looks {
    /// Where the first began.
    start: UnixMs,
    /// All that ended up to here was found, but for what came to be later.
    seen_to: UnixMs,
    count: u64,
}

impl Looks {
    fn new(start: UnixMs) -> Self {
        Self {
            start,
            seen_to: start,
            count: 0,
        }
    }

    /// Where the next look begins.
    fn since(&self) -> UnixMs {
        if self.count.is_multiple_of(WIDE_EVERY) {
            return self.start;
        }
        self.start.max(earlier(self.seen_to, LOOK_BACK))
    }

    /// Finds the next keys and deletes them.
    async fn look(&mut self, lane: &Lane, store: &Store) -> Result<(), Failure> {
        if self.count.is_multiple_of(WIDE_EVERY) && !store.index_ends().await? {
            return Ok(());
        }
        // Read before: what ends meanwhile is for the next look.
        let now = store.clock().now();
        let found = store.ended(self.since(), LOOK_KEYS as i64).await?;
        for keys in found.chunks(UNITS) {
            let units = keys.iter().map(|(key, _)| expired(key)).collect();
            lane.submit(units).await.map_err(Failure::Lane)?;
        }
        match found.last() {
            Some((_, end)) if found.len() == LOOK_KEYS => self.seen_to = *end,
            _ => {
                self.seen_to = now;
                self.count += 1;
            }
        }
        Ok(())
    }
}

/// The unit that deletes `key` if its end has passed.
fn expired(key: &Key) -> Unit {
    let command = &command::EXPIRED;
    let request = Request::from_args(&[command.name.as_bytes(), &key.name]);
    Unit::single(key.db, Call::new(command, request))
}

fn earlier(time: UnixMs, by: Duration) -> UnixMs {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    UnixMs(time.0.saturating_sub(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_begins_a_little_before_what_was_seen_and_now_and_then_at_the_start() {
        let mut looks = Looks::new(UnixMs(10_000));
        assert_eq!(looks.since(), UnixMs(10_000));
        looks.count = 1;
        assert_eq!(looks.since(), UnixMs(10_000));
        looks.seen_to = UnixMs(50_000);
        assert_eq!(looks.since(), UnixMs(49_000));
        looks.count = WIDE_EVERY;
        assert_eq!(looks.since(), UnixMs(10_000));
    }
}
