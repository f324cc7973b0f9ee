//! What all connections of a server share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

use super::pause::Pause;
use super::registry::Registry;
use super::slowlog::SlowLog;
use super::stats::Stats;
use super::users::Users;
use crate::config::Config;
use crate::flow::Flow;

/// The unit in which bytes of requests are counted against their bounds.
const ACCOUNTED_BYTES: usize = 1024;

/// What all connections of a server share.
pub struct Hub {
    /// The data path.
    pub flow: Flow,
    /// The connected clients.
    pub registry: Registry,
    /// What was counted.
    pub stats: Stats,
    /// Who may do what.
    pub users: Users,
    /// What took long.
    pub slowlog: SlowLog,
    /// Whether clients wait.
    pub pause: Pause,
    /// 40 hexadecimal digits that tell this run of the program from any other.
    pub run_id: String,
    /// When the program started.
    pub started: Instant,
    /// The same by the clock on the wall.
    pub started_at: SystemTime,
    config: watch::Receiver<Arc<Config>>,
    address: OnceLock<SocketAddr>,
    working: Budget,
    receiving: Budget,
    waiting: Budget,
}

/// A bound on bytes, shared by all connections.
pub struct Budget {
    semaphore: Arc<Semaphore>,
    units: u32,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / ACCOUNTED_BYTES as u64)
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            semaphore: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// The bytes that are held now, to the next full kilobyte each.
    pub fn held(&self) -> usize {
        (self.units as usize - self.semaphore.available_permits()) * ACCOUNTED_BYTES
    }

    /// Waits until `bytes` more are free (all of them, if that is more than
    /// there is), and holds them until the answer is dropped.
    pub async fn hold(&self, bytes: usize) -> SemaphorePermit<'_> {
        let units = u32::try_from(bytes.div_ceil(ACCOUNTED_BYTES)).unwrap_or(u32::MAX);
        self.semaphore
            .acquire_many(units.min(self.units))
            .await
            .expect("the semaphore is never closed")
    }

    /// Makes `held` hold `bytes` in all, if so many are free; never waits, since whoever
    /// holds some may be waiting for its own client.
    pub fn try_grow(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let units = u32::try_from(bytes.div_ceil(ACCOUNTED_BYTES)).unwrap_or(u32::MAX);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = units.saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        if missing == 0 {
            return true;
        }
        let Ok(more) = Arc::clone(&self.semaphore).try_acquire_many_owned(missing) else {
            return false;
        };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

impl Hub {
    /// The hub of a server that starts now. When `config` changes,
    /// connections see it at their next request.
    pub fn new(config: watch::Receiver<Arc<Config>>, flow: Flow, users: Users) -> Self {
        let in_flight = config.borrow().limits.requests_in_flight_bytes.as_u64();
        Self {
            flow,
            registry: Registry::default(),
            stats: Stats::default(),
            users,
            slowlog: SlowLog::default(),
            pause: Pause::default(),
            run_id: (0..40)
                .map(|_| char::from(b"0123456789abcdef"[rand::random_range(0..16)]))
                .collect(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            working: Budget::new(in_flight),
            receiving: Budget::new(in_flight),
            waiting: Budget::new(in_flight),
            config,
            address: OnceLock::new(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Notes the address at which clients connect; the first one counts.
    pub fn listening_on(&self, address: SocketAddr) {
        let _ = self.address.set(address);
    }

    /// The address at which clients connect; as configured until it is known.
    pub fn address(&self) -> SocketAddr {
        *self.address.get_or_init(|| self.config().listen.address)
    }

    /// The bound on bytes of requests that are being worked on.
    pub fn working(&self) -> &Budget {
        &self.working
    }

    /// The bound on bytes of commands that wait for EXEC, and of watched keys.
    pub fn waiting(&self) -> &Budget {
        &self.waiting
    }

    /// The bound on bytes of large requests that have not arrived in full.
    pub fn receiving(&self) -> &Budget {
        &self.receiving
    }
}
