//! Reads from the store, gathered: what many clients miss at once is one statement.

use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{mpsc, oneshot};

use super::Refusal;
use crate::engine::Loaded;
use crate::model::{Generation, UnixMs};
use crate::store::{FenceState, LoadRequest, Snapshot, Store, StoreError};
use crate::telemetry;

/// Requests that may wait; more wait in their senders.
const QUEUE: usize = 1024;
/// Requests in one statement at most.
const GATHER: usize = 256;

/// Keys of one request, all from one snapshot of the store.
#[derive(Debug)]
pub struct LoadedKeys {
    /// One for each key asked for, in that order.
    pub keys: Vec<Loaded>,
    /// The store's clock.
    pub now: UnixMs,
    /// The fence in the same snapshot.
    pub fence: (Generation, FenceState),
}

struct Request {
    keys: Vec<LoadRequest>,
    answer: oneshot::Sender<Result<LoadedKeys, Refusal>>,
}

/// The queue of loads; a clone is a handle to the same.
#[derive(Clone)]
pub struct Loader {
    queue: mpsc::Sender<Request>,
    /// Requests that are not answered yet.
    waiting: Gauge,
}

/// A request counted as waiting until this is dropped, also by a client that goes.
struct Waits<'a>(&'a Gauge);

impl<'a> Waits<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Loader {
    /// Starts the workers: so many statements are under way at once at most, however many
    /// clients miss. A cache that came back empty is filled at the pace that they keep.
    pub fn start(store: &Arc<Store>, workers: u16) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let requests = Arc::new(tokio::sync::Mutex::new(requests));
        for _ in 0..workers {
            tokio::spawn(work(Arc::clone(store), Arc::clone(&requests)));
        }
        Self {
            queue,
            waiting: metrics::gauge!(telemetry::LOADS_WAITING),
        }
    }

    /// Loads `keys`, at least one, from one snapshot that is taken after this call.
    pub async fn load(&self, keys: Vec<LoadRequest>) -> Result<LoadedKeys, Refusal> {
        let (answer, answered) = oneshot::channel();
        let _counted = Waits::new(&self.waiting);
        self.queue
            .send(Request { keys, answer })
            .await
            .map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }
}

async fn work(store: Arc<Store>, requests: Arc<tokio::sync::Mutex<mpsc::Receiver<Request>>>) {
    let mut batch = Vec::with_capacity(GATHER);
    loop {
        if requests.lock().await.recv_many(&mut batch, GATHER).await == 0 {
            return;
        }
        answer(&store, &mut batch).await;
    }
}

/// Answers all requests from one snapshot, or each from one of its own if they are
/// too much together.
async fn answer(store: &Store, batch: &mut Vec<Request>) {
    let keys = |batch: &[Request]| -> Vec<LoadRequest> {
        batch
            .iter()
            .flat_map(|request| request.keys.iter().cloned())
            .collect()
    };
    match store.snapshot(&keys(batch)).await {
        Ok(snapshot) => distribute(batch.drain(..), snapshot),
        Err(StoreError::TooLarge(_)) if batch.len() > 1 => {
            for request in batch.drain(..) {
                Box::pin(answer(store, &mut vec![request])).await;
            }
        }
        Err(error) => {
            let refusal = match error {
                StoreError::TooLarge(_) => Refusal::TooLarge(error.to_string()),
                error => Refusal::ReadsAway(error.to_string()),
            };
            for request in batch.drain(..) {
                // A client that has gone does not want its answer.
                let _ = request.answer.send(Err(refusal.clone()));
            }
        }
    }
}

fn distribute(batch: impl Iterator<Item = Request>, snapshot: Snapshot) {
    let mut loaded = snapshot.keys.into_iter();
    for request in batch {
        let keys = loaded.by_ref().take(request.keys.len()).collect();
        let fence = (snapshot.generation, snapshot.state);
        // A client that has gone does not want its answer.
        let _ = request.answer.send(Ok(LoadedKeys {
            keys,
            now: snapshot.now,
            fence,
        }));
    }
}
