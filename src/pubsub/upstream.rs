//! The connection to the backing Redis: what was sent and is owed an answer,
//! and the task that keeps it open.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::broker::{Broker, Unreached};
use super::frames;
use super::topics::{NOT_SENT, Space};
use crate::cache::{CacheError, Identity, Link, LinkOptions};
use crate::model::{Db, Protocol, Reply};
use crate::resp::{ReplyScanner, decode_reply};

/// Bytes that may wait to be sent; more is held back, or dropped where nobody waits for it.
const OUT_BYTES_MAX: usize = 64 << 20;

/// Requests that may wait for an answer, likewise.
const DUE_MAX: usize = 100_000;

/// Names in one command to Redis.
const NAMES_MAX: usize = 1000;

/// Free space offered to each read.
const READ_BYTES: usize = 64 * 1024;

/// Between two tries to connect, at first and at most.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Looks in a row at which another server is on record, before one is believed to be replaced.
const STRANGE_MAX: u32 = 2;

/// Who is owed what Redis answers next.
pub(super) enum Due {
    /// So many confirmations, of a command with this number if somebody waits for it.
    Confirmations(usize, u64),
    /// A client.
    Client(oneshot::Sender<Result<Reply, Unreached>>),
    /// Nobody.
    Nobody,
    /// This proxy: whether other proxies want to hear of changes.
    Curious,
    /// This proxy, from a message about changes; so many of its receivers are itself.
    Changes(i64),
    /// This proxy: how many proxies were asked to tell of changes.
    Asked,
    /// This proxy: how many proxies there are.
    Proxies,
}

/// One connection's traffic. Numbers go on from connection to connection.
#[derive(Default)]
pub(super) struct Wire {
    pub is_open: bool,
    pub out: BytesMut,
    due: VecDeque<Due>,
    /// Commands that subscribe: sent, and confirmed.
    sent: u64,
    confirmed: u64,
    /// Those who wait for a confirmation, by the command's number.
    waiters: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Wire {
    /// Whether more may be sent on behalf of somebody who can wait.
    pub fn takes_more(&self) -> bool {
        self.is_open && self.out.len() < OUT_BYTES_MAX && self.due.len() < DUE_MAX
    }

    /// Sends an encoded request.
    pub fn send(&mut self, request: &[u8], due: Due) {
        self.out.extend_from_slice(request);
        self.due.push_back(due);
    }

    /// Sends a request.
    pub fn send_words(&mut self, words: &[&[u8]], due: Due) {
        frames::request(words.iter().copied(), &mut self.out);
        self.due.push_back(due);
    }

    /// Subscribes to `names`; gives the number that confirms the last of them.
    pub fn subscribe(&mut self, space: Space, names: &[Bytes]) -> u64 {
        for chunk in names.chunks(NAMES_MAX) {
            self.sent += 1;
            self.send_names(space.subscribe(), chunk, self.sent);
        }
        self.sent
    }

    /// Ends the subscription to `names`.
    pub fn unsubscribe(&mut self, space: Space, names: &[Bytes]) {
        for chunk in names.chunks(NAMES_MAX) {
            self.send_names(space.unsubscribe(), chunk, 0);
        }
    }

    fn send_names(&mut self, command: &str, names: &[Bytes], number: u64) {
        let words: Vec<&[u8]> = std::iter::once(command.as_bytes())
            .chain(names.iter().map(|name| &name[..]))
            .collect();
        frames::request(words.into_iter(), &mut self.out);
        self.due.push_back(Due::Confirmations(names.len(), number));
    }

    /// What tells when command `number` is confirmed; `None` if it is.
    pub fn waiter(&mut self, number: u64) -> Option<oneshot::Receiver<()>> {
        if number <= self.confirmed {
            return None;
        }
        let (waiter, waiting) = oneshot::channel();
        self.waiters.entry(number).or_default().push(waiter);
        Some(waiting)
    }

    /// Takes note that a command was confirmed for one more name. An answer that
    /// was not due would mean that the two sides do not understand each other.
    fn confirm(&mut self) -> Result<(), CacheError> {
        let Some(Due::Confirmations(left, number)) = self.due.front_mut() else {
            return Err(CacheError::Lost("a confirmation came unasked".into()));
        };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        let number = *number;
        self.due.pop_front();
        self.confirmed = self.confirmed.max(number);
        let rest = self.waiters.split_off(&(self.confirmed + 1));
        for waiter in std::mem::replace(&mut self.waiters, rest)
            .into_values()
            .flatten()
        {
            // Who gave up does not want to know.
            let _ = waiter.send(());
        }
        Ok(())
    }

    /// Begins anew on a connection that has just been opened.
    pub fn open(&mut self) {
        self.is_open = true;
        self.out.clear();
        self.due.clear();
    }

    /// Everybody who waits for a confirmation waits for the last command sent.
    pub fn await_last(&mut self) {
        let waiting = std::mem::take(&mut self.waiters);
        let waiting: Vec<_> = waiting.into_values().flatten().collect();
        if !waiting.is_empty() {
            self.waiters.insert(self.sent, waiting);
        }
    }

    /// Ends with the connection. Who waits for a confirmation goes on waiting.
    pub fn close(&mut self) {
        self.is_open = false;
        self.out.clear();
        for due in self.due.drain(..) {
            if let Due::Client(client) = due {
                let _ = client.send(Err(Unreached::Lost));
            }
        }
        let waiting = std::mem::take(&mut self.waiters);
        let waiting: Vec<_> = waiting.into_values().flatten().collect();
        if !waiting.is_empty() {
            self.waiters.insert(NOT_SENT, waiting);
        }
    }

    /// Takes out who is owed the reply that came.
    fn answered(&mut self) -> Result<Due, CacheError> {
        match self.due.pop_front() {
            Some(Due::Confirmations(..)) => {
                Err(CacheError::Refused("a subscription was refused".into()))
            }
            Some(due) => Ok(due),
            None => Err(CacheError::Lost("a reply came unasked".into())),
        }
    }

    fn owes(&self) -> bool {
        !self.due.is_empty()
    }
}

/// Keeps a connection open for ever.
pub(super) async fn run(broker: Arc<Broker>, options: LinkOptions) {
    let mut pause = PAUSE;
    loop {
        let error = match Link::connect(&options, Db::default(), Protocol::Resp3).await {
            Ok(link) if link.identity.is_primary => {
                pause = PAUSE;
                broker.opened();
                let error = serve(&broker, link, &options).await;
                broker.lost();
                error
            }
            Ok(_) => CacheError::Stranger("it is a replica".into()),
            Err(error) => error,
        };
        tracing::info!(%error, "messages wait for the connection to Redis");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Serves one connection until it fails.
async fn serve(broker: &Broker, link: Link, options: &LinkOptions) -> CacheError {
    let ended = tokio::select! {
        ended = write(broker, link.writer) => ended,
        ended = read(broker, link.reader, options.reply_timeout) => ended,
        stranger = replaced(&link.identity, options) => Err(stranger),
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Waits until another server is the cache: one that was replaced may live on, where nobody
/// else meets any more. One that has just come back is on record a moment later, so the record is asked again.
async fn replaced(own: &Identity, options: &LinkOptions) -> CacheError {
    let mut tick = tokio::time::interval(options.reply_timeout);
    let mut strange = 0;
    loop {
        tick.tick().await;
        match options.on_record.check(own) {
            Ok(()) => strange = 0,
            Err(_) if strange < STRANGE_MAX => strange += 1,
            Err(stranger) => return stranger,
        }
    }
}

type Never = std::convert::Infallible;

async fn write(
    broker: &Broker,
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
) -> Result<Never, CacheError> {
    loop {
        let out = broker.take_out();
        if out.is_empty() {
            broker.sent().await;
            // Whoever is ready to send does so before the bytes go out.
            tokio::task::yield_now().await;
            continue;
        }
        writer
            .write_all(&out)
            .await
            .map_err(|error| CacheError::Lost(error.to_string()))?;
    }
}

async fn read(
    broker: &Broker,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    reply_timeout: Duration,
) -> Result<Never, CacheError> {
    let mut buffer = BytesMut::new();
    let mut scanner = ReplyScanner::default();
    let mut tick = tokio::time::interval(reply_timeout);
    tick.tick().await;
    let mut was_silent = false;
    loop {
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                match read {
                    Ok(0) => return Err(CacheError::Lost("closed by Redis".into())),
                    Ok(_) => was_silent = false,
                    Err(error) => return Err(CacheError::Lost(error.to_string())),
                }
            }
            _ = tick.tick() => {
                if was_silent && broker.lock().wire.owes() {
                    return Err(CacheError::Lost("no answer in time".into()));
                }
                // A connection that died without a word is noticed by this.
                broker.ping();
                was_silent = true;
                continue;
            }
        }
        loop {
            let length = scanner
                .advance(&buffer)
                .map_err(|error| CacheError::Lost(error.to_string()))?;
            let Some(length) = length else { break };
            take(broker, buffer.split_to(length).freeze())?;
        }
    }
}

/// Deals with one frame from Redis.
fn take(broker: &Broker, frame: Bytes) -> Result<(), CacheError> {
    if frame.first() != Some(&b'>') {
        let due = broker.lock().wire.answered()?;
        let reply = decode_reply(&frame).map_err(|error| CacheError::Lost(error.to_string()))?;
        broker.answer(due, reply);
        return Ok(());
    }
    let Some((kind, name, next)) = frames::kind_and_name(&frame) else {
        return Ok(());
    };
    match Space::of_message(kind) {
        Some(space) => {
            broker.deliver(space, name, &frame, next);
            Ok(())
        }
        None => broker.lock().wire.confirm(),
    }
}
