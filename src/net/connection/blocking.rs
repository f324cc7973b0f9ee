//! Commands that keep their client waiting, and what becomes of the client meanwhile.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::{Connection, End};
use crate::client::{Order, Replies, Unblock};
use crate::command::Call;
use crate::flow::Wait;
use crate::model::Reply;
use crate::net::workbench::READ_BYTES;
use crate::pubsub::Mailbox;

/// What is kept of the requests that a client sends while a command of it waits.
const WAITING_INPUT_BYTES: usize = 64 * 1024;

impl Connection<'_> {
    /// Runs a command that waits if there is nothing for it. Replies before it
    /// are sent first.
    pub(super) async fn block(&mut self, call: Call) -> Result<(), End> {
        self.flush().await?;
        let start = Instant::now();
        self.entry.note_activity(start, call.command.name);
        let was = self.client.replies;
        if was == Replies::SkipNext {
            self.client.replies = Replies::On;
        }
        let reply = match self.hub.flow.wait(&self.client.origin(&[]), &call).await {
            Ok(wait) => {
                self.entry.begin_block();
                let reply = self.await_reply(wait).await;
                self.entry.end_block();
                reply?
            }
            Err(refusal) => refusal,
        };
        let before = self.unsent();
        self.reply(&reply);
        // The time that a client has waited is not time that the command took.
        self.account(call, before, was != Replies::On, Duration::ZERO);
        Ok(())
    }

    /// Waits for the reply, and watches the client meanwhile.
    async fn await_reply(&mut self, mut wait: Wait) -> Result<Reply, End> {
        let mut timer = wait
            .limit()
            .map(|limit| Box::pin(tokio::time::sleep(limit)));
        let woken = poll_fn(|cx| {
            if let Poll::Ready(reply) = wait.poll_reply(cx) {
                return Poll::Ready(Ok(Woken::Reply(reply)));
            }
            self.entry.will_wait(cx.waker());
            if self.entry.order() != Order::Serve {
                return Poll::Ready(Ok(Woken::Closing));
            }
            if let Some(how) = self.entry.unblocked() {
                return Poll::Ready(Ok(Woken::Unblocked(how)));
            }
            if let Some(timer) = &mut timer
                && timer.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(Woken::Unblocked(Unblock::Timeout)));
            }
            self.poll_gone(cx).map(Err)
        })
        .await?;
        let how = match woken {
            Woken::Reply(reply) => return Ok(reply),
            Woken::Unblocked(how) => how,
            // As below: an item that a try has taken would be lost with the connection.
            Woken::Closing => {
                return match wait.give_up().await {
                    Reply::Null | Reply::NullArray => Err(End::Closed),
                    reply => Ok(reply),
                };
            }
        };
        // A try may be under way: what it gets must not be lost.
        Ok(match (wait.give_up().await, how) {
            (Reply::Null | Reply::NullArray, Unblock::Timeout) => Reply::NullArray,
            (Reply::Null | Reply::NullArray, Unblock::Error) => {
                Reply::error("UNBLOCKED client unblocked via CLIENT UNBLOCK")
            }
            (reply, _) => reply,
        })
    }

    /// Ready when the client has gone. What it sends meanwhile is kept for later,
    /// within a bound; who sends more is not watched any longer.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let bench = self.bench.get_or_insert_with(|| self.pool.take());
            if bench.input.len() >= WAITING_INPUT_BYTES {
                return Poll::Pending;
            }
            if bench.input.capacity() == bench.input.len() {
                bench.input.reserve(READ_BYTES);
            }
            match pin!(self.socket.read_buf(&mut bench.input)).poll(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(length)) => self.hub.stats.note_read(length),
                Poll::Pending => {
                    if bench.input.is_empty() && bench.output.is_empty() {
                        let bench = self.bench.take();
                        bench.into_iter().for_each(|bench| self.pool.give(bench));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Waits while a pause holds `call`; mail is delivered meanwhile.
    pub(super) async fn hold(&mut self, call: Call) -> Result<(), End> {
        self.held = Some(call);
        self.take_mail()?;
        self.flush().await?;
        let Self { hub, entry, .. } = self;
        let mut over = pin!(hub.pause.over());
        poll_fn(|cx| {
            entry.will_wait(cx.waker());
            if entry.order() == Order::Close {
                return Poll::Ready(Err(End::Closed));
            }
            if entry.mail().is_some_and(Mailbox::has_mail) {
                return Poll::Ready(Ok(()));
            }
            over.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

/// How a waiting command goes on.
enum Woken {
    /// It has got something, or was refused.
    Reply(Reply),
    /// It ends without.
    Unblocked(Unblock),
    /// The connection is to end.
    Closing,
}
