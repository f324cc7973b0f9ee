//! Keys of `write-behind` routes: written in the journal's server, and from there to the store.
//!
//! - `burst`: commands go there in one MULTI with what guards them and what notes their keys.
//! - `bring`: what is not known there is brought from the store.
//! - `drain`: one proxy writes what was changed to the store.
//! - `keeper`: which journal is in use, and whether it may be.

mod bring;
mod burst;
mod drain;
mod keeper;
mod meters;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use self::burst::{Gatherer, Job};
use self::drain::Drainer;
use self::keeper::{Keeper, digest};
use self::meters::Meters;
use super::{Lane, Refusal};
use crate::cache::Journal;
use crate::command::Class;
use crate::config::{Config, UnsafeJournal};
use crate::model::{Key, Protocol, Reply};
use crate::store::Store;

/// Writes of clients that wait for the journal's server at once; more wait for room.
const JOBS_MAX: usize = 16 * 1024;

/// Keys brought from the store at once, by this proxy.
const LOADS_MAX: usize = 2;

/// Commands of one client that are done as one.
#[derive(Debug, Default)]
pub struct Asked {
    /// The requests, with the names that the journal's server has for their keys: working ones if
    /// any of them writes, else resting ones.
    pub requests: Vec<Bytes>,
    /// Their keys, in the order of the requests.
    pub keys: Vec<AskedKey>,
    /// Whether any of them writes.
    pub is_write: bool,
}

/// A key of a command.
#[derive(Clone, Debug)]
pub struct AskedKey {
    /// The key.
    pub key: Key,
    /// Whether the command may change it.
    pub is_written: bool,
    /// Whether the command replaces it, whatever it was, and cannot fail.
    pub is_replaced: bool,
}

/// Why commands were not answered by the journal's server.
#[derive(Clone, Debug)]
pub enum NotAsked {
    /// It is out of use: nothing was done.
    Away(String),
    /// Too much waits to be written to the store: nothing was done.
    Full,
    /// It gave no answer.
    Unknown(String),
    /// This is what it said: nothing was done.
    Error(Bytes),
    /// A key could not be brought in: nothing was done.
    Store(Refusal),
}

impl NotAsked {
    /// As an error reply to a command of this class.
    pub fn reply(&self, class: Class) -> Reply {
        let text = match self {
            Self::Away(why) => {
                format!(
                    "TRYAGAIN the journal of write-behind keys is out of use: nothing was done ({why})"
                )
            }
            Self::Full => {
                "TRYAGAIN the journal of write-behind keys is full: nothing was done".into()
            }
            Self::Unknown(why) if class == Class::Write => {
                format!("UNKNOWN the journal's server may or may not have done it ({why})")
            }
            Self::Unknown(why) => format!("TRYAGAIN the journal's server gave no answer ({why})"),
            Self::Error(text) => return Reply::Error(text.clone()),
            Self::Store(refusal) => return refusal.reply(),
        };
        Reply::error(text.replace(['\r', '\n'], " "))
    }
}

/// Whether the journal may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    /// Not, and why.
    Out(Arc<str>),
    /// It is the one with this mark.
    Ready(Arc<str>),
}

/// What all parts share.
struct Shared {
    journal: Journal,
    store: Arc<Store>,
    stand: watch::Sender<Stand>,
    stopping: watch::Sender<bool>,
    meters: Meters,
    loads: Semaphore,
    /// Tells which keys are write-behind here.
    digest: String,
    max_entries: u32,
    wait: Duration,
    keep: Duration,
    on_unsafe: UnsafeJournal,
}

impl Shared {
    /// The mark of the journal, as soon as it may be used.
    async fn ready(&self, deadline: Instant) -> Result<Arc<str>, NotAsked> {
        let mut stand = self.stand.subscribe();
        let is_ready = |stand: &Stand| matches!(stand, Stand::Ready(_));
        let ready = stand.wait_for(is_ready);
        if let Ok(Ok(stand)) = tokio::time::timeout_at(deadline.into(), ready).await
            && let Stand::Ready(mark) = &*stand
        {
            return Ok(Arc::clone(mark));
        }
        Err(NotAsked::Away(match &*self.stand.borrow() {
            Stand::Out(why) => why.to_string(),
            Stand::Ready(_) => "it has come back just now".to_owned(),
        }))
    }

    /// The journal of this mark cannot be used as it was: the keeper looks into it.
    fn lost(&self, mark: &str, why: &str) {
        self.stand.send_if_modified(|stand| {
            let is_of_this = matches!(stand, Stand::Ready(known) if **known == *mark);
            if is_of_this {
                *stand = Stand::Out(why.into());
            }
            is_of_this
        });
    }
}

/// The journal, for the data path.
pub struct Behind {
    shared: Arc<Shared>,
    /// Of writes, for each protocol.
    queues: [mpsc::UnboundedSender<Job>; 2],
    room: Arc<Semaphore>,
    drainer: std::sync::Mutex<Option<JoinHandle<()>>>,
    keeper: JoinHandle<()>,
}

impl Behind {
    /// Starts what works with the journal of `config`; nothing if it names none.
    pub async fn start(
        journal: Option<Journal>,
        config: &Config,
        store: &Arc<Store>,
        lane: &Arc<Lane>,
    ) -> Option<Self> {
        match journal {
            Some(journal) => Some(Self::start_with(journal, config, store, lane)),
            None => {
                warn_of_others(store).await;
                None
            }
        }
    }

    fn start_with(journal: Journal, config: &Config, store: &Arc<Store>, lane: &Arc<Lane>) -> Self {
        let settings = &config.write_behind;
        let shared = Arc::new(Shared {
            journal,
            store: Arc::clone(store),
            stand: watch::Sender::new(Stand::Out("it was not looked at yet".into())),
            stopping: watch::Sender::new(false),
            meters: Meters::new(),
            loads: Semaphore::new(LOADS_MAX),
            digest: config.route.behind_digest(),
            max_entries: settings.max_entries,
            wait: settings.wait,
            keep: settings.keep,
            on_unsafe: settings.on_unsafe_journal,
        });
        let queues = [Protocol::Resp2, Protocol::Resp3]
            .map(|protocol| Gatherer::start(Arc::clone(&shared), protocol));
        let drainer = Drainer::new(Arc::clone(&shared), Arc::clone(lane));
        let keeper = Keeper::new(Arc::clone(&shared), drainer.clone());
        Self {
            keeper: tokio::spawn(keeper.run()),
            drainer: std::sync::Mutex::new(Some(tokio::spawn(drainer.run()))),
            shared,
            queues,
            room: Arc::new(Semaphore::new(JOBS_MAX)),
        }
    }

    /// Does what is asked, as one; a reply for each request.
    pub async fn ask(&self, asked: Asked, protocol: Protocol) -> Result<Vec<Bytes>, NotAsked> {
        let deadline = Instant::now() + self.shared.wait;
        if !asked.is_write {
            return self.shared.look(&asked, protocol, deadline).await;
        }
        let stopped = || NotAsked::Store(Refusal::Stopping);
        let room = Arc::clone(&self.room).acquire_owned().await;
        let (job, answered) = Job::new(asked, deadline, room.map_err(|_| stopped())?);
        let queue = &self.queues[usize::from(protocol == Protocol::Resp3)];
        queue.send(job).map_err(|_| stopped())?;
        let lost = || NotAsked::Unknown("this proxy is stopping".into());
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Writes to the store what is left in the journal, unless another proxy does. All clients must have
    /// been answered.
    pub async fn drain(&self) {
        self.shared.stopping.send_replace(true);
        let drainer = self
            .drainer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(drainer) = drainer {
            // One that panicked has nothing more to write.
            let _ = drainer.await;
        }
        self.keeper.abort();
    }
}

/// A proxy without a journal, where there is one: perhaps another proxy's, perhaps forgotten.
async fn warn_of_others(store: &Store) {
    // If it cannot be told, the start itself will say more.
    if let Ok(Some(row)) = store.journal().await
        && !digest(&row.incarnation).is_empty()
    {
        tracing::warn!(
            journal = row.incarnation,
            "PostgreSQL knows of a journal of write-behind keys, and this proxy has none: it does not \
             see what is not written yet, and what it writes to these keys may be overwritten. Give \
             all proxies the same [write_behind] url and routes"
        );
    }
}
