//! Commands on their way to the journal's server.
//!
//! Writes of all clients go in bursts: one MULTI with the guard, the commands, and what puts their keys to rest
//! and notes them in the journal. So value and note are one step, and cost little each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet};
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{Asked, AskedKey, NotAsked, Shared};
use crate::cache::{
    CacheError, Guarded, RESTING_PREFIX, Replies, WORKING_PREFIX, finish, guard, look, tail,
};
use crate::model::{Key, Protocol, Reply};
use crate::resp;

/// Commands of one burst, and bytes, at most; a larger job goes alone.
const BURST_CALLS: usize = 512;
const BURST_BYTES: usize = 1 << 20;

/// Bursts under way at once: one is written to the server's disk, one gathers replies.
const BURSTS_MAX: usize = 2;

/// Between two tries while the journal is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// What one client asked for.
pub(super) struct Job {
    asked: Asked,
    deadline: Instant,
    answer: oneshot::Sender<Result<Vec<Bytes>, NotAsked>>,
    /// Its place among those that wait.
    _room: OwnedSemaphorePermit,
}

type Answered = oneshot::Receiver<Result<Vec<Bytes>, NotAsked>>;

impl Job {
    pub(super) fn new(
        asked: Asked,
        deadline: Instant,
        room: OwnedSemaphorePermit,
    ) -> (Self, Answered) {
        let (answer, answered) = oneshot::channel();
        let job = Self {
            asked,
            deadline,
            answer,
            _room: room,
        };
        (job, answered)
    }

    fn bytes(&self) -> usize {
        self.asked.requests.iter().map(Bytes::len).sum()
    }

    fn answer(self, replies: Result<Vec<Bytes>, NotAsked>) {
        // A client that has gone does not want its answer.
        let _ = self.answer.send(replies);
    }
}

/// Makes bursts of the writes of one protocol.
pub(super) struct Gatherer {
    shared: Arc<Shared>,
    protocol: Protocol,
    jobs: mpsc::UnboundedReceiver<Job>,
    again: mpsc::WeakUnboundedSender<Job>,
}

impl Gatherer {
    /// Starts its task, which ends with the entrance.
    pub(super) fn start(shared: Arc<Shared>, protocol: Protocol) -> mpsc::UnboundedSender<Job> {
        let (entrance, jobs) = mpsc::unbounded_channel();
        let gatherer = Self {
            shared,
            protocol,
            jobs,
            again: entrance.downgrade(),
        };
        tokio::spawn(gatherer.run());
        entrance
    }

    async fn run(mut self) {
        let bursts = Arc::new(Semaphore::new(BURSTS_MAX));
        while let Some(first) = self.jobs.recv().await {
            let Ok(permit) = Arc::clone(&bursts).acquire_owned().await else {
                return;
            };
            let mut calls = first.asked.requests.len();
            let mut bytes = first.bytes();
            let mut jobs = vec![first];
            while calls < BURST_CALLS && bytes < BURST_BYTES {
                let Ok(job) = self.jobs.try_recv() else { break };
                calls += job.asked.requests.len();
                bytes += job.bytes();
                jobs.push(job);
            }
            let burst = Burst {
                shared: Arc::clone(&self.shared),
                protocol: self.protocol,
                again: self.again.clone(),
            };
            tokio::spawn(async move {
                burst.run(jobs, permit).await;
            });
        }
    }
}

/// One burst.
struct Burst {
    shared: Arc<Shared>,
    protocol: Protocol,
    again: mpsc::WeakUnboundedSender<Job>,
}

/// The names of a burst's keys, each once.
#[derive(Default)]
struct Names {
    places: AHashMap<Key, usize>,
    names: Vec<Vec<u8>>,
    /// For each, `w` if it may be changed.
    written: Vec<u8>,
    /// For each, `y` if nothing need be known of it.
    free: Vec<u8>,
}

impl Names {
    fn add(&mut self, asked: &AskedKey, prefix: &[u8]) {
        let place = *self.places.entry(asked.key.clone()).or_insert_with(|| {
            self.names.push([prefix, &tail(&asked.key)].concat());
            self.written.push(b'r');
            // Only who comes first finds what was there before.
            self.free.push(if asked.is_replaced { b'y' } else { b'n' });
            self.names.len() - 1
        });
        if asked.is_written {
            self.written[place] = b'w';
        }
    }

    /// The keys at `places`.
    fn keys(&self, places: &[usize]) -> Vec<Key> {
        let wanted: AHashSet<usize> = places.iter().copied().collect();
        let all = self.places.iter();
        all.filter(|(_, place)| wanted.contains(place))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

fn flags(flags: &[u8]) -> &str {
    std::str::from_utf8(flags).unwrap_or_default()
}

/// What the server said to a burst.
enum Said {
    /// The replies to the commands.
    Ran(Vec<Bytes>),
    /// The guard let none of them work.
    Not(Guarded),
    /// The burst was refused as a whole, with this error.
    Refused(Bytes),
}

impl Said {
    fn of(replies: &Replies) -> Self {
        let last = replies.get(replies.len() - 1);
        let Some(mut items) = resp::split_array(&last).filter(|items| !items.is_empty()) else {
            let texts = (0..replies.len()).map(|index| replies.get(index));
            // The first that was refused says more than that all was therefore discarded.
            let error = texts.into_iter().find(|text| text.starts_with(b"-"));
            return Self::Refused(match error.map(|error| resp::decode_reply(&error)) {
                Some(Ok(Reply::Error(text))) => text,
                _ => Bytes::from_static(b"ERR the journal's server gave no reply to EXEC"),
            });
        };
        match resp::decode_reply(&items[0]).map(Guarded::of) {
            Ok(Guarded::Ran) => {
                items.remove(0);
                Self::Ran(items)
            }
            Ok(other) => Self::Not(other),
            Err(error) => Self::Not(Guarded::Refused(error.to_string())),
        }
    }
}

impl Burst {
    async fn run(&self, jobs: Vec<Job>, permit: OwnedSemaphorePermit) {
        let now = Instant::now();
        let deadline = jobs.iter().map(|job| job.deadline).max().unwrap_or(now);
        let mark = match self.shared.ready(deadline).await {
            Ok(mark) => mark,
            Err(why) => return answer_all(jobs, &why),
        };
        let names = named(&jobs);
        match self.exchange(&mark, &jobs, &names).await {
            Ok(Said::Ran(replies)) => self.distribute(&mark, jobs, replies),
            Ok(Said::Refused(error)) if jobs.len() == 1 => {
                answer_all(jobs, &NotAsked::Error(error));
            }
            // One among them is at fault: it alone shall hear of it.
            Ok(Said::Refused(_)) => {
                for job in jobs {
                    let alone = vec![job];
                    let names = named(&alone);
                    match self.exchange(&mark, &alone, &names).await {
                        Ok(Said::Ran(replies)) => self.distribute(&mark, alone, replies),
                        Ok(Said::Refused(error)) => answer_all(alone, &NotAsked::Error(error)),
                        Ok(Said::Not(_)) => self.once_more(alone, &NotAsked::Full),
                        Err(error) => self.failed(&mark, alone, &error),
                    }
                }
            }
            Ok(Said::Not(guarded)) => {
                drop(permit);
                self.not_done(&mark, jobs, &names, guarded).await;
            }
            Err(error) => self.failed(&mark, jobs, &error),
        }
    }

    async fn exchange(&self, mark: &str, jobs: &[Job], names: &Names) -> Result<Said, CacheError> {
        let mut block = BytesMut::from(MULTI);
        let most = self.shared.max_entries;
        block.extend_from_slice(&guard(mark, most, &names.names, flags(&names.free)));
        let mut count = 4;
        for request in jobs.iter().flat_map(|job| &job.asked.requests) {
            block.extend_from_slice(request);
            count += 1;
        }
        block.extend_from_slice(&finish(&names.names, flags(&names.written)));
        block.extend_from_slice(EXEC);
        let journal = &self.shared.journal;
        let replies = journal.send(self.protocol, &block, count).await?;
        Ok(Said::of(&replies))
    }

    fn distribute(&self, mark: &str, jobs: Vec<Job>, mut replies: Vec<Bytes>) {
        match replies.pop().map(|reply| resp::decode_reply(&reply)) {
            Some(Ok(Reply::Integer(length))) => self.shared.meters.entries.set(length as f64),
            other => {
                let why = format!("the changes were not noted: {other:?}");
                self.shared.lost(mark, &why);
                return answer_all(jobs, &NotAsked::Unknown(why));
            }
        }
        let mut replies = replies.into_iter();
        for job in jobs {
            let own = replies.by_ref().take(job.asked.requests.len()).collect();
            job.answer(Ok(own));
        }
    }

    /// Nothing was done: because of what, and what then?
    async fn not_done(&self, mark: &str, jobs: Vec<Job>, names: &Names, guarded: Guarded) {
        match guarded {
            Guarded::Ran => {}
            Guarded::Full => {
                tokio::time::sleep(FULL_PAUSE).await;
                self.once_more(jobs, &NotAsked::Full);
            }
            Guarded::Refused(why) => {
                self.shared.lost(mark, &why);
                self.once_more(jobs, &NotAsked::Away(why));
            }
            Guarded::Missing { dropped, places } => {
                let keys = names.keys(&places);
                let missing: AHashSet<&Key> = keys.iter().collect();
                let is_cold = |job: &Job| job.asked.keys.iter().any(|k| missing.contains(&k.key));
                let (cold, warm): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_cold);
                let late = NotAsked::Away("keys were dropped again and again".into());
                self.once_more(warm, &late);
                match self.shared.bring(mark, dropped, &keys).await {
                    Ok(()) => self.once_more(cold, &late),
                    Err(why) => answer_all(cold, &why),
                }
            }
        }
    }

    fn failed(&self, mark: &str, jobs: Vec<Job>, error: &CacheError) {
        let why = error.to_string();
        self.shared.lost(mark, &why);
        match error {
            CacheError::Unreachable(_) => self.once_more(jobs, &NotAsked::Away(why)),
            _ => answer_all(jobs, &NotAsked::Unknown(why)),
        }
    }

    /// Sends jobs in again, but those for which it is too late: because of `why`.
    fn once_more(&self, jobs: Vec<Job>, why: &NotAsked) {
        let now = Instant::now();
        let entrance = self.again.upgrade();
        for job in jobs {
            match &entrance {
                Some(entrance) if now < job.deadline => {
                    // It fails only if the gatherer has ended: then nobody waits any more.
                    let _ = entrance.send(job);
                }
                _ => job.answer(Err(why.clone())),
            }
        }
    }
}

fn named(jobs: &[Job]) -> Names {
    let mut names = Names::default();
    for asked in jobs.iter().flat_map(|job| &job.asked.keys) {
        names.add(asked, WORKING_PREFIX);
    }
    names
}

fn answer_all(jobs: Vec<Job>, why: &NotAsked) {
    for job in jobs {
        job.answer(Err(why.clone()));
    }
}

impl Shared {
    /// Runs commands that only read, on keys at rest.
    pub(super) async fn look(
        &self,
        asked: &Asked,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Vec<Bytes>, NotAsked> {
        let mut names = Names::default();
        for key in &asked.keys {
            names.add(key, RESTING_PREFIX);
        }
        let mut late = NotAsked::Away("it took too long".into());
        loop {
            let mark = self.ready(deadline).await?;
            let mut block = BytesMut::from(MULTI);
            block.extend_from_slice(&look(&mark, &names.names));
            for request in &asked.requests {
                block.extend_from_slice(request);
            }
            block.extend_from_slice(EXEC);
            let count = asked.requests.len() + 3;
            match self.journal.send(protocol, &block, count).await {
                Ok(replies) => match Said::of(&replies) {
                    Said::Ran(replies) => return Ok(replies),
                    Said::Refused(error) => return Err(NotAsked::Error(error)),
                    Said::Not(Guarded::Missing { dropped, places }) => {
                        self.bring(&mark, dropped, &names.keys(&places)).await?;
                    }
                    Said::Not(Guarded::Refused(why)) => {
                        self.lost(&mark, &why);
                        late = NotAsked::Away(why);
                    }
                    Said::Not(Guarded::Ran | Guarded::Full) => {}
                },
                Err(error) => {
                    let why = error.to_string();
                    self.lost(&mark, &why);
                    late = NotAsked::Unknown(why);
                }
            }
            if deadline <= Instant::now() {
                return Err(late);
            }
        }
    }
}
