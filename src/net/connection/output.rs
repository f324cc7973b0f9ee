//! What goes out: replies, within the bounds on clients that do not read them.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Connection, End, Refusal};
use crate::client::{Order, Replies};
use crate::model::Reply;
use crate::net::socket::Socket;
use crate::pubsub::Mailbox;
use crate::resp::{self, RequestError};

/// How long a closed connection is read from, so that the last reply is not
/// lost to the reset that unread bytes would cause.
const LINGER: Duration = Duration::from_millis(500);

/// How long a client may take for its replies while too much waits for all together.
const CROWD_PATIENCE: Duration = Duration::from_secs(1);

impl Connection<'_> {
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let before = self.unsent();
        self.reply(&refusal.reply);
        let Some(bench) = &mut self.bench else { return };
        let command = refusal.call.as_ref().map(|call| call.command);
        self.hub
            .stats
            .record_refusal(command, &bench.output[before..]);
        self.keep_silent(before);
    }

    /// Takes back what was written from `before` on, if the client wants no reply.
    pub(super) fn keep_silent(&mut self, before: usize) {
        let Some(bench) = &mut self.bench else { return };
        if self.client.replies != Replies::On {
            bench.output.truncate(before);
        }
        if self.client.replies == Replies::SkipNext {
            self.client.replies = Replies::On;
        }
    }

    pub(super) fn break_off(&mut self, error: RequestError) {
        tracing::info!(peer = %self.entry.peer, %error, "a client is disconnected");
        let before = self.unsent();
        self.reply(&error.reply());
        if let Some(bench) = &self.bench {
            self.hub.stats.note_error(&bench.output[before..]);
        }
    }

    pub(super) fn reply(&mut self, reply: &Reply) {
        let bench = self.bench.get_or_insert_with(|| self.pool.take());
        resp::encode(reply, self.client.protocol, &mut bench.output);
    }

    pub(super) fn unsent(&self) -> usize {
        self.bench.as_ref().map_or(0, |bench| bench.output.len())
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.unsent() == 0 {
            return Ok(());
        }
        self.hub.stats.note_write(self.unsent());
        // Nearly always the socket takes all at once, and no timer is needed.
        let first = poll_fn(|cx| Poll::Ready(self.poll_send(cx))).await;
        if let Poll::Ready(sent) = first {
            sent?;
        }
        if self.unsent() > 0 || matches!(self.socket, Socket::Tls(_)) {
            self.send_rest().await?;
        }
        Ok(())
    }

    /// Sends what the socket did not take at once. The client has to read: it
    /// is cut off when nothing went out for `output_timeout`, when more
    /// than `output_buffer` is left after that time, or when it is one of those with the most
    /// while more than `output_total` waits for all.
    async fn send_rest(&mut self) -> Result<(), End> {
        let config = self.hub.config();
        let patience = config.limits.output_timeout;
        let tolerated = config.limits.output_buffer.as_usize();
        let total = config.limits.output_total.as_usize();
        let mut part = self.pool.unsent().part();
        let start = Instant::now();
        let mut progress = start;
        while self.unsent() > 0 {
            part.set(self.unsent());
            let is_slow = start.elapsed() >= CROWD_PATIENCE && part.is_too_much(total);
            if is_slow || self.unsent() > tolerated && start.elapsed() >= patience {
                return Err(End::CutOff);
            }
            let left = patience.saturating_sub(progress.elapsed());
            let step = timeout(left.min(CROWD_PATIENCE), poll_fn(|cx| self.poll_send(cx)));
            match step.await {
                Ok(sent) => {
                    sent?;
                    progress = Instant::now();
                }
                Err(_) if progress.elapsed() >= patience => return Err(End::CutOff),
                Err(_) => {}
            }
        }
        drop(part);
        timeout(patience, self.socket.flush())
            .await
            .map_err(|_| End::CutOff)?
            .map_err(|_| End::Gone)
    }

    /// Writes once; ends when the connection is told to close meanwhile.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Some(bench) = &mut self.bench else {
            return Poll::Ready(Ok(()));
        };
        self.entry.will_wait(cx.waker());
        if self.entry.order() == Order::Close {
            return Poll::Ready(Err(End::Gone));
        }
        if self.entry.mail().is_some_and(Mailbox::is_overfull) {
            return Poll::Ready(Err(End::CutOff));
        }
        match pin!(self.socket.write_buf(&mut bench.output)).poll(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(End::Gone)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Closes the socket, gently if the client is to read what was written.
    pub(super) async fn finish(mut self, end: End) {
        self.client.leave();
        if let Some(bench) = self.bench.take() {
            self.pool.give(bench);
        }
        match end {
            End::Gone => {}
            End::CutOff => {
                self.hub.stats.note_cut_off();
                tracing::warn!(
                    peer = %self.entry.peer,
                    "a client that did not read its replies is cut off"
                );
            }
            End::Closed if self.entry.order() == Order::Close => {}
            End::Closed => {
                let _ = timeout(LINGER, linger(&mut self.socket)).await;
            }
        }
    }
}

/// Says that nothing more will come, and waits until the client has closed too.
async fn linger(socket: &mut Socket) -> io::Result<()> {
    socket.shutdown().await?;
    let mut nowhere = [0; 1024];
    while socket.read(&mut nowhere).await? > 0 {}
    Ok(())
}
