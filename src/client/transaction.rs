//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! What a block holds runs in one of three places:
//! - Commands over named keys are one unit: one transaction in the store, and
//!   visible in the cache at once.
//! - `FLUSHALL`, `FLUSHDB` and `SWAPDB` cannot be in that transaction. They
//!   divide the block: what stands before them is one unit, what stands behind them another.
//! - All others run in their place in the order of replies, once the unit has committed.
//!   Those that list keys (`KEYS`, `SCAN`, `DBSIZE`, `RANDOMKEY`) see the unit's writes
//!   as a whole: none where they stand before the first of them, else all.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::access::admit_again;
use super::hub::Hub;
use super::local::{self, After};
use super::state::{Client, Mode, Replies};
use crate::command::{Call, Class, Token, once, wrong_arity};
use crate::flow::{Origin, Seen, Step};
use crate::model::{Db, Key, Reply};
use crate::resp;

/// The classes of commands that are done in one transaction.
const UNIT: &[Class] = &[Class::Read, Class::Expiry, Class::Write, Class::Script];

/// What a queued command costs beside its bytes, as accounted.
const QUEUED_BYTES: usize = 128;

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Block {
    calls: Vec<Call>,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
    /// A command was refused: EXEC will refuse the block.
    is_broken: bool,
}

/// The keys that WATCH guards, as they were when it did.
#[derive(Debug, Default)]
pub struct Watchlist {
    keys: BTreeMap<Key, Seen>,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Block {
    /// The number of commands queued.
    pub fn queued(&self) -> usize {
        self.calls.len()
    }

    /// The commands, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Under which token the block is made once: its first command says so.
    fn token(&self) -> Option<&Token> {
        self.calls.first().and_then(|call| call.token.as_ref())
    }

    /// Why `call` cannot come next in the block because that, or this, is about a token: what a repeat
    /// is answered stands in the transaction of the block, so nothing may run beside that.
    fn refusal_for_once(&self, call: &Call) -> Option<Reply> {
        if call.command.name == once::NAME {
            let text = format!("ERR {} must be the first command of its block", once::NAME);
            return (!self.calls.is_empty()).then(|| Reply::error(text));
        }
        let is_on_keys = matches!(
            call.command.class,
            Class::Read | Class::Expiry | Class::Write | Class::Script
        );
        (self.token().is_some() && !is_on_keys).then(|| {
            Reply::error(format!(
                "ERR a block made once ({}) can have only commands on named keys, not '{}'",
                once::NAME,
                call.command.name.to_ascii_lowercase()
            ))
        })
    }
}

/// Whether `call` waits for EXEC, if its client is between MULTI and EXEC.
pub fn waits(call: &Call) -> bool {
    !matches!(
        call.command.name,
        "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "QUIT" | "RESET"
    )
}

/// Queues `call` in the block that `client` has begun.
///
/// # Errors
/// The block is longer than a client, or all of them together, may keep
/// waiting; it is broken then.
pub fn queue(client: &mut Client, hub: &Hub, mut call: Call) -> Result<(), Reply> {
    let Mode::Queueing(block) = &mut client.mode else {
        return Err(Reply::error("ERR EXEC without MULTI"));
    };
    // As in Redis: what will be refused need not be kept.
    if block.is_broken {
        return Ok(());
    }
    if let Some(refusal) = block.refusal_for_once(&call) {
        block.is_broken = true;
        return Err(refusal);
    }
    // Its own copy: it must not keep a whole read buffer alive.
    call.request = call.request.detached();
    let bytes = block.bytes + call.request.raw().len() + QUEUED_BYTES;
    if bytes > hub.config().limits.query_buffer.as_usize()
        || !hub.waiting().try_grow(&mut block.held, bytes)
    {
        block.is_broken = true;
        return Err(Reply::error(
            "ERR the transaction is too long to be kept until EXEC; nothing will be done",
        ));
    }
    block.bytes = bytes;
    block.calls.push(call);
    client.publish();
    Ok(())
}

/// Notes that a request was refused before it ran; what its client is told.
pub fn refused(client: &mut Client, is_exec: bool, reply: Reply) -> Reply {
    if !is_exec {
        if let Mode::Queueing(block) = &mut client.mode {
            block.is_broken = true;
        }
        return reply;
    }
    forget(client);
    let Reply::Error(reason) = reply else {
        return reply;
    };
    let reason = reason.strip_prefix(b"ERR ").unwrap_or(&reason);
    let mut text = b"EXECABORT Transaction discarded because of: ".to_vec();
    text.extend_from_slice(reason);
    Reply::Error(Bytes::from(text))
}

/// Answers a command of the class `Transaction`.
pub async fn answer(client: &mut Client, hub: &Hub, call: &Call) -> (Reply, After) {
    let is_queueing = matches!(client.mode, Mode::Queueing(_));
    let reply = match call.command.name {
        "EXEC" => return exec(client, hub).await,
        "MULTI" if is_queueing => Reply::error("ERR MULTI calls can not be nested"),
        "MULTI" => {
            client.mode = Mode::Queueing(Box::default());
            client.publish();
            Reply::OK
        }
        "DISCARD" if !is_queueing => Reply::error("ERR DISCARD without MULTI"),
        "DISCARD" => {
            forget(client);
            Reply::OK
        }
        "WATCH" if is_queueing => Reply::error("ERR WATCH inside MULTI is not allowed"),
        "WATCH" => watch(client, hub, call).await,
        once::NAME => Reply::error(format!(
            "ERR {} without a command makes a MULTI block once, as its first command",
            once::NAME
        )),
        "UNWATCH" => {
            client.watched = Watchlist::default();
            Reply::OK
        }
        _ => wrong_arity(call.command),
    };
    (reply, After::Continue)
}

/// Ends the block, and lets go of the watched keys.
fn forget(client: &mut Client) -> (Box<Block>, Watchlist) {
    let mode = std::mem::take(&mut client.mode);
    client.publish();
    let watched = std::mem::take(&mut client.watched);
    match mode {
        Mode::Queueing(block) => (block, watched),
        Mode::Normal => (Box::default(), watched),
    }
}

async fn watch(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    let watched = &mut client.watched;
    let mut bytes = watched.bytes;
    let mut new = Vec::new();
    for key in call.keys(client.db) {
        // What was seen first counts.
        if !watched.keys.contains_key(&key) {
            bytes += key.name.len() + QUEUED_BYTES;
            new.push(Key::new(key.db, Bytes::copy_from_slice(&key.name)));
        }
    }
    if new.is_empty() {
        return Reply::OK;
    }
    if bytes > hub.config().limits.query_buffer.as_usize()
        || !hub.waiting().try_grow(&mut watched.held, bytes)
    {
        return Reply::error("ERR too many keys are watched; none was added");
    }
    watched.bytes = bytes;
    match hub.flow.watch(new).await {
        Ok(seen) => {
            watched.keys.extend(seen);
            Reply::OK
        }
        Err(refusal) => refusal,
    }
}

async fn exec(client: &mut Client, hub: &Hub) -> (Reply, After) {
    if !matches!(client.mode, Mode::Queueing(_)) {
        return (Reply::error("ERR EXEC without MULTI"), After::Continue);
    }
    let (block, watched) = forget(client);
    if block.is_broken {
        let text = "EXECABORT Transaction discarded because of previous errors.";
        return (Reply::error(text), After::Continue);
    }
    let _held = hub.working().hold(block.bytes).await;
    client.remember_block(hub, &block.calls);
    let started = Instant::now();
    let mut replies: Vec<Option<Reply>> = block
        .calls
        .iter()
        .map(|call| admit_again(client, hub, call))
        .collect();
    let token = block.token().cloned();
    if token.is_some() {
        if let Some(refusal) = replies.iter().flatten().next() {
            return (refusal.clone(), After::Continue);
        }
        replies[0] = Some(Reply::OK);
    }
    let mut run = Run {
        token,
        steps: place(client.db, &block.calls, &replies),
        watched: watched.keys.into_iter().collect(),
        replies,
        out: BytesMut::from(format!("*{}\r\n", block.calls.len()).as_bytes()),
        after: After::Continue,
    };
    let header = run.out.len();
    if let Err(reply) = run.all(client, hub).await {
        return (reply, After::Continue);
    }
    let took = started.elapsed();
    hub.stats.record_run(&block.calls, &run.out[header..], took);
    hub.slowlog.note(&block.calls, took, &client.entry);
    (Reply::Raw(run.out.freeze()), run.after)
}

/// The database of each call: the last `SELECT` before it that will succeed says so.
fn place(mut db: Db, calls: &[Call], refused: &[Option<Reply>]) -> Vec<Step> {
    let step = |(call, refused): (&Call, &Option<Reply>)| {
        if call.command.name == "SELECT" && refused.is_none() {
            db = local::selected(call).unwrap_or(db);
        }
        Step::new(db, call.clone())
    };
    calls.iter().zip(refused).map(step).collect()
}

/// A block being run.
struct Run {
    /// Under which token it is made once.
    token: Option<Token>,
    steps: Vec<Step>,
    /// What the first unit must find unchanged.
    watched: Vec<(Key, Seen)>,
    /// What is known so far, for each step.
    replies: Vec<Option<Reply>>,
    out: BytesMut,
    after: After,
}

impl Run {
    /// Runs everything; an error is EXEC's reply, and nothing was done.
    async fn all(&mut self, client: &mut Client, hub: &Hub) -> Result<(), Reply> {
        let mut from = 0;
        let calls: Vec<Call> = self.steps.iter().map(|step| step.call.clone()).collect();
        let origin = client.origin(&calls);
        loop {
            let is_flush = |index: &usize| {
                let class = self.steps[*index].call.command.class;
                class == Class::Flush && self.replies[*index].is_none()
            };
            let flush = (from..self.steps.len()).find(is_flush);
            let end = flush.unwrap_or(self.steps.len());
            let done = self.part(hub, &origin, from, end).await;
            client.note_refused(hub, &origin);
            match done {
                Err(reply) if from == 0 => return Err(reply),
                Err(reply) => self.refuse_part(from, end, &reply),
                Ok(()) => {}
            }
            for index in from..end {
                self.emit(client, hub, index).await;
            }
            let Some(flush) = flush else { return Ok(()) };
            self.whole(hub, flush).await;
            self.emit(client, hub, flush).await;
            from = flush + 1;
        }
    }

    /// Runs what goes to the data path of the steps from `from` to before `end`.
    async fn part(
        &mut self,
        hub: &Hub,
        origin: &Origin,
        from: usize,
        end: usize,
    ) -> Result<(), Reply> {
        let of_class = |index: &usize, classes: &[Class]| {
            classes.contains(&self.steps[*index].call.command.class)
        };
        let unit: Vec<usize> = (from..end)
            .filter(|index| self.replies[*index].is_none())
            .filter(|index| of_class(index, UNIT))
            .collect();
        let lists: Vec<usize> = (from..end)
            .filter(|index| self.replies[*index].is_none())
            .filter(|index| of_class(index, &[Class::Keyspace]))
            .collect();
        let first_write = unit
            .iter()
            .find(|index| of_class(index, &[Class::Write, Class::Script]));
        let early = first_write.map_or(0, |first| lists.partition_point(|at| at < first));
        for index in &lists[..early] {
            self.whole(hub, *index).await;
        }
        if !unit.is_empty() || !self.watched.is_empty() {
            let steps = unit.iter().map(|index| self.steps[*index].clone());
            let watched = std::mem::take(&mut self.watched);
            let token = self.token.take();
            let flow = &hub.flow;
            let replies = flow
                .transact(steps.collect(), watched, origin, token)
                .await?;
            // A watched key has changed.
            let replies = replies.ok_or(Reply::NullArray)?;
            for (index, reply) in unit.iter().zip(replies) {
                self.replies[*index] = Some(reply);
            }
        }
        for index in &lists[early..] {
            self.whole(hub, *index).await;
        }
        Ok(())
    }

    /// A unit behind a flush that could not be committed: its commands are
    /// answered by why, and the block goes on.
    fn refuse_part(&mut self, from: usize, end: usize, reply: &Reply) {
        for index in from..end {
            let class = self.steps[index].call.command.class;
            if !matches!(class, Class::Local | Class::Transaction) {
                self.replies[index] = Some(reply.clone());
            }
        }
    }

    async fn whole(&mut self, hub: &Hub, index: usize) {
        let Step { db, call, .. } = &self.steps[index];
        self.replies[index] = Some(hub.flow.whole(call, *db).await);
    }

    /// Writes the reply to a step; runs it now, if it is answered in place.
    async fn emit(&mut self, client: &mut Client, hub: &Hub, index: usize) {
        let reply = match self.replies[index].take() {
            Some(reply) => Some(reply),
            None => {
                let call = &self.steps[index].call;
                let (reply, after) = Box::pin(local::answer(client, hub, call)).await;
                if after == After::Close {
                    self.after = after;
                }
                reply
            }
        };
        // `CLIENT REPLY OFF` within a block: the rest is not answered, as in Redis.
        if let Some(reply) = reply.filter(|_| client.replies != Replies::Off) {
            resp::encode(&reply, client.protocol, &mut self.out);
        }
    }
}
