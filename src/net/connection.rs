//! One connection: read, run, write, in order.

mod blocking;
mod judge;
mod output;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use self::judge::{Verdict, judge, place};
use super::socket::Socket;
use super::workbench::{Pool, READ_BYTES, Workbench};
use crate::client::{After, Client, Entry, Hub, Order, Replies, answer, queue};
use crate::command::Call;
use crate::config;
use crate::model::Reply;
use crate::pubsub::{Listens, Mailbox};
use crate::resp::{self, Decoder, RequestError};

/// Replies of this many bytes are sent before the next run begins.
const FLUSH_BYTES: usize = 64 * 1024;

/// What a run's replies may come to, going by those before, so that few large
/// values do not fill the memory a thousand at a time.
const RUN_REPLY_BYTES: usize = 1024 * 1024;

/// Bounds on the calls of a run: of a connection's first, and of any; the
/// configuration has the last word.
const FIRST_RUN_CALLS: usize = 16;
const RUN_CALLS_MAX: usize = 100_000;

/// A request of more bytes than this is counted against the bound on all such
/// while it arrives.
const LARGE_BYTES: usize = 64 * 1024;

/// By how much the buffer of a request grows at a time, unless it needs less
/// or is larger already.
const GROWTH_BYTES: usize = 1024 * 1024;

/// How long a large request waits for others to arrive; then it is refused,
/// since they may be waiting for it.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads after the order to drain: what had been received then is in these.
const DRAIN_READS_MAX: u32 = 64;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client went, or its socket failed.
    Gone,
    /// We end it; what was to be said has been written.
    Closed,
    /// It did not read its replies.
    CutOff,
}

/// What follows the calls that were gathered.
enum Next {
    /// More may be in the buffer.
    More,
    /// Nothing complete is in the buffer.
    Wait,
    /// A command that is answered in place.
    Local(Call),
    /// A command that waits for EXEC.
    Queue(Call),
    /// A command that waits for the end of a pause.
    Hold(Call),
    /// A command that may have to wait for something to be written.
    Block(Call),
    /// A request that is refused before it runs.
    Refuse(Refusal),
    /// Bytes that are no request.
    Broken(RequestError),
    /// A web browser was led to talk to us: close without a word, as Redis does.
    CrossProtocol,
}

struct Refusal {
    call: Option<Call>,
    reply: Reply,
}

/// One client's connection.
struct Connection<'a> {
    socket: Socket,
    hub: &'a Hub,
    pool: &'a Pool,
    entry: Arc<Entry>,
    client: Client,
    decoder: Decoder,
    /// Lent while there is work; an idle connection has none.
    bench: Option<Box<Workbench>>,
    /// Held for a large request that is arriving.
    room: Option<SemaphorePermit<'a>>,
    /// The calls that the next run may have, going by the last one's replies.
    run_calls_max: usize,
    drain_reads: u32,
    /// A command that waits for the end of a pause.
    held: Option<Call>,
}

/// What a connection waited for.
enum Arrival {
    /// So many bytes from the client.
    Bytes(usize),
    /// Mail for the client.
    Mail,
}

/// Serves a client until it goes, or is told to.
pub async fn serve(socket: Socket, hub: &Hub, pool: &Pool, entry: Arc<Entry>) {
    let config = hub.config();
    let limits = resp::Limits {
        request_bytes: config.limits.query_buffer.as_usize(),
        ..resp::Limits::default()
    };
    drop(config);
    let mut connection = Connection {
        socket,
        hub,
        pool,
        client: Client::new(hub, Arc::clone(&entry)),
        entry,
        decoder: Decoder::new(limits),
        bench: None,
        room: None,
        run_calls_max: FIRST_RUN_CALLS,
        drain_reads: 0,
        held: None,
    };
    let end = connection.run().await;
    connection.finish(end).await;
}

impl Connection<'_> {
    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.receive().await {
                return end;
            }
            if let Err(end) = self.work().await {
                return end;
            }
        }
    }

    /// Waits for bytes from the client, and holds no buffer meanwhile unless
    /// a part of a request is in it.
    async fn receive(&mut self) -> Result<(), End> {
        self.make_room().await?;
        let since = Instant::now();
        let Self {
            socket,
            hub,
            pool,
            entry,
            client,
            bench,
            drain_reads,
            ..
        } = self;
        // Who listens may be silent for ever.
        let may_idle = client.listens() == Listens::Yes;
        let arrival = poll_fn(|cx| {
            entry.will_wait(cx.waker());
            let order = entry.order();
            let is_idle = || !may_idle && is_idle(hub, since);
            if order == Order::Close || (entry.take_idle_check() && is_idle()) {
                return Poll::Ready(Err(End::Closed));
            }
            let on = bench.get_or_insert_with(|| pool.take());
            if on.input.capacity() == on.input.len() || on.input.capacity() < READ_BYTES {
                on.input.reserve(READ_BYTES);
            }
            match pin!(socket.read_buf(&mut on.input)).poll(cx) {
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
                Poll::Ready(Ok(length)) => Poll::Ready(Ok(Arrival::Bytes(length))),
                // Requests come first: a flood of mail must not keep a client from ending it.
                Poll::Pending if entry.mail().is_some_and(Mailbox::has_mail) => {
                    Poll::Ready(Ok(Arrival::Mail))
                }
                Poll::Pending if order == Order::Drain => Poll::Ready(Err(End::Closed)),
                Poll::Pending => {
                    if on.input.is_empty() {
                        bench.take().into_iter().for_each(|bench| pool.give(bench));
                    }
                    Poll::Pending
                }
            }
        })
        .await?;
        let Arrival::Bytes(length) = arrival else {
            return Ok(());
        };
        if entry.order() == Order::Drain {
            *drain_reads += 1;
            if *drain_reads > DRAIN_READS_MAX {
                return Err(End::Closed);
            }
        }
        self.hub.stats.note_read(length);
        Ok(())
    }

    /// Makes room for a large request that is arriving, within the bound on
    /// all such. Memory is taken as bytes arrive: an announced length costs nothing.
    async fn make_room(&mut self) -> Result<(), End> {
        if !self.decoder.is_within_request() {
            self.room = None;
        }
        let Some(bench) = &mut self.bench else {
            return Ok(());
        };
        let received = bench.input.len();
        let missing = self.decoder.missing_bytes(received);
        let free = bench.input.capacity() - received;
        let is_small = received + missing.max(READ_BYTES) <= LARGE_BYTES;
        if is_small || free >= missing.clamp(1, READ_BYTES) {
            return Ok(());
        }
        let step = GROWTH_BYTES.max(received);
        let growth = if missing <= 2 * step {
            missing.max(received)
        } else {
            step
        };
        match timeout(ROOM_TIMEOUT, self.hub.receiving().hold(growth)).await {
            Ok(permit) => {
                match &mut self.room {
                    Some(room) => room.merge(permit),
                    room => *room = Some(permit),
                }
                bench.input.reserve(growth);
                Ok(())
            }
            Err(_) => {
                self.reply(&Reply::error(
                    "ERR too many large requests are arriving; nothing was done, try again",
                ));
                self.flush().await?;
                Err(End::Closed)
            }
        }
    }

    /// Runs all complete requests in the buffer, and sends their replies.
    async fn work(&mut self) -> Result<(), End> {
        loop {
            let config = self.hub.config();
            let next = match self.held.take() {
                Some(call) => self.resume(call),
                None => self.gather(&config.limits),
            };
            drop(config);
            self.run_calls().await;
            let mut after = After::Continue;
            let mut all_done = false;
            match next {
                Next::More => {}
                Next::Wait => all_done = true,
                Next::Local(call) => after = self.answer(call).await,
                Next::Queue(call) => self.queue(call),
                Next::Hold(call) => self.hold(call).await?,
                Next::Block(call) => self.block(call).await?,
                Next::Refuse(refusal) => self.refuse(&refusal),
                Next::Broken(error) => {
                    self.break_off(error);
                    after = After::Close;
                }
                Next::CrossProtocol => {
                    tracing::warn!(peer = %self.entry.peer, "an HTTP request on the Redis port");
                    after = After::Close;
                }
            }
            self.take_mail()?;
            if all_done || after == After::Close || self.unsent() >= FLUSH_BYTES {
                self.flush().await?;
            }
            if after == After::Close || self.entry.order() == Order::Close {
                return Err(End::Closed);
            }
            if all_done {
                return Ok(());
            }
        }
    }

    /// Decodes requests up to the first that does not go to the data path, or
    /// to the bounds on what runs together.
    fn gather(&mut self, limits: &config::Limits) -> Next {
        let Some(bench) = &mut self.bench else {
            return Next::Wait;
        };
        let calls_max = match self.client.replies {
            // A run's replies are sent or not as a whole.
            Replies::SkipNext => 1,
            Replies::On | Replies::Off => self.run_calls_max.min(limits.run_calls as usize),
        };
        let bytes_max = limits.run_bytes.as_usize();
        let trust = self.client.trust();
        let mut bytes = 0;
        while bench.calls.len() < calls_max && bytes < bytes_max {
            let request = match self.decoder.decode(&mut bench.input, trust) {
                Ok(Some(request)) => request,
                Ok(None) => return Next::Wait,
                Err(error) => return Next::Broken(error),
            };
            bytes += request.raw().len();
            match judge(request, &mut self.client, self.hub) {
                Verdict::Run(call) => bench.calls.push(call),
                Verdict::Stop(next) => return next,
            }
        }
        Next::More
    }

    /// Goes on with a command that a pause held.
    fn resume(&mut self, call: Call) -> Next {
        match place(call, &self.client, self.hub) {
            Verdict::Stop(next) => next,
            Verdict::Run(call) => {
                let bench = self.bench.get_or_insert_with(|| self.pool.take());
                bench.calls.push(call);
                Next::More
            }
        }
    }

    /// Runs the gathered calls on the data path.
    async fn run_calls(&mut self) {
        let Some(bench) = &mut self.bench else { return };
        let Some(last) = bench.calls.last() else {
            return;
        };
        let bytes = bench
            .calls
            .iter()
            .map(|call| call.request.raw().len())
            .sum();
        let start = Instant::now();
        self.entry.note_activity(start, last.command.name);
        let _held = self.hub.working().hold(bytes).await;
        let before = bench.output.len();
        self.client.remember_reads(self.hub, &bench.calls);
        let origin = self.client.origin(&bench.calls);
        self.hub
            .flow
            .run(&origin, &bench.calls, &mut bench.output)
            .await;
        self.client.note_refused(self.hub, &origin);
        let took = start.elapsed();
        let replies = &bench.output[before..];
        self.hub.stats.record_run(&bench.calls, replies, took);
        self.hub.slowlog.note(&bench.calls, took, &self.entry);
        let each = replies.len() / bench.calls.len();
        let more = (self.run_calls_max * 2).min(RUN_CALLS_MAX);
        self.run_calls_max = (RUN_REPLY_BYTES / each.max(1)).clamp(1, more);
        if self.client.replies != Replies::On {
            bench.output.truncate(before);
        }
        if self.client.replies == Replies::SkipNext {
            self.client.replies = Replies::On;
        }
        bench.calls.clear();
    }

    /// Answers a command in place.
    async fn answer(&mut self, call: Call) -> After {
        let start = Instant::now();
        self.entry.note_activity(start, call.command.name);
        let before = self.unsent();
        let was = self.client.replies;
        if was == Replies::SkipNext && call.command.name == "CLIENT|REPLY" {
            self.client.replies = Replies::On;
        }
        let (reply, after) = answer(&mut self.client, self.hub, &call).await;
        if was == Replies::SkipNext && call.command.name != "CLIENT|REPLY" {
            self.client.replies = Replies::On;
        }
        // `CLIENT REPLY ON` is answered whatever held until then.
        let silent = was != Replies::On
            && !(call.command.name == "CLIENT|REPLY" && matches!(reply, Some(Reply::Simple(_))));
        if let Some(reply) = reply {
            self.reply(&reply);
        }
        self.account(call, before, silent, start.elapsed());
        after
    }

    /// Counts an answered command; one that is not to be answered leaves nothing.
    fn account(&mut self, call: Call, before: usize, silent: bool, took: Duration) {
        let calls = [call];
        if let Some(bench) = &mut self.bench {
            let replies = &bench.output[before..];
            self.hub.stats.record_run(&calls, replies, took);
            if silent {
                bench.output.truncate(before);
            }
        }
        self.hub.slowlog.note(&calls, took, &self.entry);
    }

    /// Writes the mail that has come for the client.
    fn take_mail(&mut self) -> Result<(), End> {
        let Some(mailbox) = self.entry.mail() else {
            return Ok(());
        };
        if mailbox.is_overfull() {
            return Err(End::CutOff);
        }
        if mailbox.has_mail() {
            let bench = self.bench.get_or_insert_with(|| self.pool.take());
            self.client.take_mail(&mut bench.output);
        }
        Ok(())
    }

    /// Keeps a command for EXEC.
    fn queue(&mut self, call: Call) {
        self.entry.note_activity(Instant::now(), call.command.name);
        match queue(&mut self.client, self.hub, call) {
            Ok(()) => {
                let before = self.unsent();
                self.reply(&Reply::Simple("QUEUED"));
                self.keep_silent(before);
            }
            Err(reply) => self.refuse(&Refusal { call: None, reply }),
        }
    }
}

/// Whether a client that has been waited for since then is to be disconnected.
fn is_idle(hub: &Hub, since: Instant) -> bool {
    let limit = hub.config().listen.idle_timeout;
    limit > Duration::ZERO && since.elapsed() >= limit
}
