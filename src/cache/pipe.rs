//! A connection that all clients share for hits: their requests go out
//! together and the replies come back in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::link::{Link, LinkOptions};
use super::{CacheError, Identity};
use crate::model::{Db, Protocol};
use crate::resp::ReplyScanner;

/// Free space offered to each read; replies larger than that take several.
const READ_BYTES: usize = 64 * 1024;

/// The replies to one burst, in order.
#[derive(Debug)]
pub struct Replies {
    bytes: Bytes,
    ends: SmallVec<[usize; 8]>,
}

impl Replies {
    /// All of them, as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none, as after an empty burst.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Reply `index`, encoded.
    ///
    /// # Panics
    /// If there are not that many, like a slice.
    pub fn get(&self, index: usize) -> Bytes {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.bytes.slice(start..self.ends[index])
    }

    /// Each reply, encoded.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends
            .iter()
            .map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }
}

/// What is sent and what is awaited on one connection.
#[derive(Default)]
struct Traffic {
    out: BytesMut,
    waiting: VecDeque<Burst>,
    failure: Option<CacheError>,
}

struct Burst {
    replies: usize,
    answer: oneshot::Sender<Result<Replies, CacheError>>,
}

struct Shared {
    traffic: Mutex<Traffic>,
    sent: Notify,
}

impl Shared {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        // Nothing panics while it is locked; if it ever did, the queue is still whole.
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: CacheError) {
        let waiting = {
            let mut traffic = self.traffic();
            traffic.failure = Some(error.clone());
            std::mem::take(&mut traffic.waiting)
        };
        for burst in waiting {
            // A client that has gone does not want its answer.
            let _ = burst.answer.send(Err(error.clone()));
        }
        self.sent.notify_one();
    }
}

/// An open shared connection. It lasts until its first failure.
pub struct Pipe {
    shared: Arc<Shared>,
    identity: Identity,
}

impl Pipe {
    /// Opens one in `db`, speaking `protocol`, and starts the tasks that serve it.
    pub async fn open(
        options: &LinkOptions,
        db: Db,
        protocol: Protocol,
    ) -> Result<Self, CacheError> {
        let link = Link::connect(options, db, protocol).await?;
        let shared = Arc::new(Shared {
            traffic: Mutex::new(Traffic::default()),
            sent: Notify::new(),
        });
        tokio::spawn(write_requests(link.writer, Arc::clone(&shared)));
        tokio::spawn(read_replies(
            link.reader,
            Arc::clone(&shared),
            options.reply_timeout,
        ));
        Ok(Self {
            shared,
            identity: link.identity,
        })
    }

    /// Who answered when it was opened.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it has failed.
    pub fn is_closed(&self) -> bool {
        self.shared.traffic().failure.is_some()
    }

    /// Sends `requests`, which give `replies` replies in all, and waits for these.
    /// They go out even if the caller stops waiting.
    pub async fn send<'a>(
        &self,
        requests: impl Iterator<Item = &'a [u8]>,
        replies: usize,
    ) -> Result<Replies, CacheError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut traffic = self.shared.traffic();
            if let Some(error) = &traffic.failure {
                return Err(error.clone());
            }
            for request in requests {
                traffic.out.extend_from_slice(request);
            }
            traffic.waiting.push_back(Burst { replies, answer });
        }
        self.shared.sent.notify_one();
        answered
            .await
            .unwrap_or_else(|_| Err(CacheError::Lost("the connection ended".into())))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.fail(CacheError::Lost("no longer used".into()));
    }
}

async fn write_requests(
    mut writer: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    shared: Arc<Shared>,
) {
    loop {
        let out = {
            let mut traffic = shared.traffic();
            if traffic.failure.is_some() {
                return;
            }
            traffic.out.split()
        };
        if out.is_empty() {
            shared.sent.notified().await;
            // Whoever is ready to send does so before the bytes go out: one
            // system call for many clients.
            tokio::task::yield_now().await;
            continue;
        }
        if let Err(error) = writer.write_all(&out).await {
            shared.fail(CacheError::Lost(error.to_string()));
            return;
        }
    }
}

async fn read_replies(
    reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    shared: Arc<Shared>,
    reply_timeout: Duration,
) {
    let mut arrivals = Arrivals {
        reader,
        shared: Arc::clone(&shared),
        buffer: BytesMut::new(),
        scanner: ReplyScanner::default(),
        ends: SmallVec::new(),
        wanted: 1,
    };
    let error = match arrivals.run(reply_timeout).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    shared.fail(error);
}

/// The reading side: bytes as they come, and the ends of the replies to the
/// burst that is first in the queue.
struct Arrivals {
    reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    shared: Arc<Shared>,
    buffer: BytesMut,
    scanner: ReplyScanner,
    ends: SmallVec<[usize; 8]>,
    /// How many replies the first burst wants, as far as is known: at least that many.
    wanted: usize,
}

impl Arrivals {
    async fn run(
        &mut self,
        reply_timeout: Duration,
    ) -> Result<std::convert::Infallible, CacheError> {
        // Silence is measured in ticks, so that a read costs no timer of its own.
        let mut tick = tokio::time::interval(reply_timeout / 4);
        let mut last_progress = Instant::now();
        loop {
            self.buffer.reserve(READ_BYTES);
            tokio::select! {
                read = self.reader.read_buf(&mut self.buffer) => {
                    match read {
                        Ok(0) => return Err(CacheError::Lost("closed by Redis".into())),
                        Ok(_) => {}
                        Err(error) => return Err(CacheError::Lost(error.to_string())),
                    }
                    last_progress = Instant::now();
                    self.deliver()?;
                }
                now = tick.tick() => {
                    let traffic = self.shared.traffic();
                    if traffic.failure.is_some() {
                        return Err(CacheError::Lost("no longer used".into()));
                    }
                    if traffic.waiting.is_empty() {
                        last_progress = now;
                    } else if now.duration_since(last_progress) > reply_timeout {
                        return Err(CacheError::Lost("no answer in time".into()));
                    }
                }
            }
        }
    }

    /// Answers every burst whose replies are all there.
    fn deliver(&mut self) -> Result<(), CacheError> {
        loop {
            let start = self.ends.last().copied().unwrap_or(0);
            let scanned = self.scanner.advance(&self.buffer[start..]);
            match scanned.map_err(|error| CacheError::Lost(error.to_string()))? {
                None => return Ok(()),
                Some(length) => self.ends.push(start + length),
            }
            if self.ends.len() < self.wanted {
                continue;
            }
            let mut traffic = self.shared.traffic();
            let Some(first) = traffic.waiting.front() else {
                return Err(CacheError::Lost("a reply that nobody asked for".into()));
            };
            self.wanted = first.replies;
            if self.ends.len() < self.wanted {
                continue;
            }
            let burst = traffic.waiting.pop_front();
            self.wanted = 1;
            drop(traffic);
            let end = self.ends.last().copied().unwrap_or(0);
            let bytes = self.buffer.split_to(end).freeze();
            let ends = std::mem::take(&mut self.ends);
            if let Some(burst) = burst {
                // A client that has gone does not want its answer.
                let _ = burst.answer.send(Ok(Replies { bytes, ends }));
            }
        }
    }
}
