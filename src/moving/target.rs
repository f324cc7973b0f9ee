//! Here: commit lanes of this process's own, beside the proxies that serve meanwhile.
//!
//! What is brought in takes the way of every write: row lock, next version, begin and apply in the
//! cache, exactly once. The cache is only told that the keys changed: it is filled by who reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Failure;
use crate::cache::Cache;
use crate::coherence::{Answer, Audience, Fence, FenceTask, Lane, Refusal, Seen, Unit};
use crate::command;
use crate::config::{ByteSize, Config, Strategy};
use crate::engine::{Content, Loaded, Need};
use crate::model::{KEY_BYTES_MAX, Key, Reply, Request, UnixMs};
use crate::pubsub::{self, Broker};
use crate::routing::Routing;
use crate::store::{LoadRequest, Store, StoreError};

/// Lanes, each with a registration of its own. More gave nothing on two cores.
const LANES: usize = 2;
/// Units of one transaction: begin takes as many names at once.
const BATCH_UNITS: u32 = 1000;
/// Connections to PostgreSQL: a registration and a session for each lane, and loads.
const POOL: u16 = 8;
/// How long servers that are away are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A change of one key.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub key: Key,
    pub what: What,
    /// The key must be as it was seen, or nothing is done.
    pub seen: Option<Seen>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// It holds this payload of `DUMP`; one that is there is replaced, or not.
    Put {
        payload: Bytes,
        expires_at: Option<UnixMs>,
        replace: bool,
    },
    Delete,
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The key is there, and was not to be replaced.
    Busy,
    /// It is not as it was seen.
    Changed,
    Refused(String),
}

/// The store and the cache, to be written to.
pub struct Target {
    store: Arc<Store>,
    routing: Arc<Routing>,
    lanes: Vec<Arc<Lane>>,
    fences: Vec<FenceTask>,
    _broker: pubsub::Task,
}

impl Target {
    /// Registers, and starts the lanes.
    pub async fn start(config: &Config) -> Result<Self, Failure> {
        let mut config = config.clone();
        config.postgres.pool_size = config.postgres.pool_size.max(POOL);
        config.commit.max_batch_units = BATCH_UNITS;
        // Nothing that is brought in pushes out of the cache what is read.
        config.cache.fill_limit = ByteSize::kb(0);
        config.cache.fill_elements = 0;
        let store = Arc::new(Store::new(&config.postgres)?);
        let routing = Arc::new(Routing::new(&config.route));
        let cache = Cache::new(&config.redis, &config.cache, Arc::clone(&routing))?;
        let cache = Arc::new(cache);
        let events = config.notifications.keyspace_events;
        let (broker, task) = Broker::start(cache.options().clone(), events);
        let audience: Arc<dyn Audience> = broker;
        let (mut lanes, mut fences) = (Vec::new(), Vec::new());
        for number in 0..LANES {
            let name = format!("import {number} pid {}", std::process::id());
            let (store, cache) = (Arc::clone(&store), Arc::clone(&cache));
            let started = Fence::start(Arc::clone(&store), Arc::clone(&cache), &config.fence, name);
            let (fence, task) = started.await?;
            lanes.push(Lane::start(
                store,
                cache,
                fence,
                &config.commit,
                Arc::clone(&audience),
            ));
            fences.push(task);
        }
        Ok(Self {
            store,
            routing,
            lanes,
            fences,
            _broker: task,
        })
    }

    /// Ends the registrations. Nothing may be written any more.
    pub async fn stop(self) {
        for fence in self.fences {
            fence.stop().await;
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// All of `keys`; `None` of one that is too large to be loaded.
    pub(super) async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Loaded>>, Failure> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let request = |key: &Key| LoadRequest::new(key.clone(), Need::value());
        let all: Vec<LoadRequest> = keys.iter().map(request).collect();
        match self.store.snapshot(&all).await {
            Ok(found) => Ok(found.keys.into_iter().map(Some).collect()),
            Err(StoreError::TooLarge(_)) if keys.len() == 1 => Ok(vec![None]),
            Err(StoreError::TooLarge(_)) => {
                let mut found = Vec::with_capacity(keys.len());
                for key in keys {
                    found.extend(Box::pin(self.load(std::slice::from_ref(key))).await?);
                }
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Why a write of `key` would not be seen.
    fn unseen(&self, key: &Key) -> Option<&'static str> {
        match self.routing.get()?.find(&key.name)?.strategy {
            Strategy::CacheOnly => {
                Some("its route is cache-only: what PostgreSQL holds of it is not seen")
            }
            Strategy::WriteBehind => {
                Some("its route is write-behind: the journal may hold something else of it")
            }
            Strategy::Mapped => Some("it is a row of a mapped table"),
            _ => None,
        }
    }

    /// Does `writes`; what each came to, in order.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>, Failure> {
        let mut written = vec![Written::Done; writes.len()];
        let mut shares: Vec<(Vec<usize>, Vec<Unit>)> = vec![Default::default(); LANES];
        for (index, write) in writes.into_iter().enumerate() {
            if write.key.name.len() > KEY_BYTES_MAX {
                written[index] = Written::Refused("its name is longer than 2600 bytes".to_owned());
                continue;
            }
            if let Some(why) = self.unseen(&write.key) {
                written[index] = Written::Refused(why.to_owned());
                continue;
            }
            match unit(&write) {
                Ok(unit) => {
                    let (indices, units) = &mut shares[lane_of(&write.key)];
                    indices.push(index);
                    units.push(unit);
                }
                Err(reply) => written[index] = came_to(Some(&reply)),
            }
        }
        let submit = self
            .lanes
            .iter()
            .zip(shares)
            .map(|(lane, (indices, units))| async move {
                Ok::<_, Failure>((indices, submit(lane, units).await?))
            });
        for (indices, answers) in futures_util::future::try_join_all(submit).await? {
            for (index, answer) in indices.into_iter().zip(answers) {
                written[index] = match answer {
                    Answer::Unwatched => Written::Changed,
                    answer => came_to(answer.replies().first()),
                };
            }
        }
        Ok(written)
    }
}

/// Waits for servers that are away: the same again changes nothing that it did.
async fn submit(lane: &Lane, units: Vec<Unit>) -> Result<Vec<Answer>, Failure> {
    let since = Instant::now();
    if units.is_empty() {
        return Ok(Vec::new());
    }
    loop {
        match lane.submit(units.clone()).await {
            Ok(answers) => return Ok(answers),
            Err(Refusal::Stopping) => return Err(Failure::Other("it is stopping".to_owned())),
            Err(refusal) if since.elapsed() > PATIENCE => {
                return Err(Failure::Other(refusal.to_string()));
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

fn lane_of(key: &Key) -> usize {
    let sum = key
        .name
        .iter()
        .fold(u32::from(key.db.index()), |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
    (sum >> 3) as usize % LANES
}

fn unit(write: &Write) -> Result<Unit, Reply> {
    let request = match &write.what {
        What::Delete => Request::from_args(&[&b"DEL"[..], &write.key.name]),
        What::Put {
            payload,
            expires_at,
            replace,
        } => {
            let end = expires_at.map_or(0, |at| at.0).to_string();
            let mut words = Vec::from([&b"RESTORE"[..], &write.key.name, end.as_bytes(), payload]);
            words.push(b"ABSTTL");
            if *replace {
                words.push(b"REPLACE");
            }
            Request::from_args(&words)
        }
    };
    let mut unit = Unit::single(write.key.db, command::resolve(request)?);
    unit.watched = write
        .seen
        .map(|seen| (write.key.clone(), seen))
        .into_iter()
        .collect();
    Ok(unit)
}

fn came_to(reply: Option<&Reply>) -> Written {
    match reply {
        Some(Reply::Error(text)) if text.starts_with(b"BUSYKEY") => Written::Busy,
        Some(Reply::Error(text)) => Written::Refused(String::from_utf8_lossy(text).into_owned()),
        _ => Written::Done,
    }
}

/// As WATCH would see it.
pub(super) fn seen(found: &Loaded) -> Seen {
    let is_present = found.content != Content::Absent;
    Seen {
        version: found.version,
        is_present,
        has_ended: !is_present && found.expires_at.is_some(),
    }
}
